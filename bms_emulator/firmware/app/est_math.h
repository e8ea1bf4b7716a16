/* Square root and exponential in float32 from additions and multiplications alone, so that host and target agree
 * bit by bit whatever their mathematical library.
 */
#ifndef EST_MATH_H
#define EST_MATH_H

#include <stdint.h>

static inline float est_min(float a, float b) { return a < b ? a : b; }
static inline float est_max(float a, float b) { return a > b ? a : b; }
static inline float est_clip(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
static inline float est_abs(float x) { return x < 0.0f ? -x : x; }

typedef union {
    float f;
    uint32_t u;
} est_bits_t;

/* exp(x) for x <= 0, relative error below 3e-7; 0 below -80. */
static inline float est_exp(float x) {
    if (x < -80.0f) {
        return 0.0f;
    }
    /* x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts, the first exact in few bits */
    const int32_t n = (int32_t)(x * 1.44269504f - 0.5f);
    const float k = (float)n;
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    float y = 1.0f / 5040.0f;
    y = y * r + 1.0f / 720.0f;
    y = y * r + 1.0f / 120.0f;
    y = y * r + 1.0f / 24.0f;
    y = y * r + 1.0f / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    const est_bits_t scale = {.u = (uint32_t)(127 + n) << 23};
    return y * scale.f;
}

/* 1 - exp(-x) for x >= 0, without cancellation for small x. */
static inline float est_one_minus_exp(float x) {
    if (x > 0.1f) {
        return 1.0f - est_exp(-x);
    }
    return x * (1.0f - x * (0.5f - x * (1.0f / 6.0f - x * (1.0f / 24.0f - x * (1.0f / 120.0f)))));
}

/* Square root of x >= 0 by Newton's method from a guess in the bits; error of an ulp or two. */
static inline float est_sqrt(float x) {
    if (x < 1.0e-30f) {
        return 0.0f;
    }
    est_bits_t guess = {.f = x};
    guess.u = 0x1fbd1df5u + (guess.u >> 1);
    float y = guess.f;
    y = 0.5f * (y + x / y);
    y = 0.5f * (y + x / y);
    y = 0.5f * (y + x / y);
    return y;
}

#endif
