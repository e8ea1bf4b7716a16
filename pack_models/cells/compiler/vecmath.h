/* Vector mathematics for the compiled cell models: W cells side by side in one vector.
 *
 * Branch-free, so that one code serves all lanes; every lane gets the same bits whatever its neighbours
 * hold and whether the host has 256- or 512-bit registers (both have fused multiply-add). Accuracy is held
 * by tests/unit/pack_models/test_compiler_math.py: a few units in the last place, absolute for tanh and asinh near 0.
 * Reduction of exp and log after Cody and Waite, Software Manual for the Elementary Functions (1980).
 */
#include <math.h>
#include <stdint.h>

#define W 8
typedef double v __attribute__((vector_size(8 * W), aligned(64)));
typedef int64_t vi __attribute__((vector_size(8 * W), aligned(64)));
#define IN static inline __attribute__((always_inline))

IN v all(double x) { return (v){x, x, x, x, x, x, x, x}; }
IN vi alli(int64_t x) { return (vi){x, x, x, x, x, x, x, x}; }
IN v pick(vi mask, v yes, v no) { return (v)((mask & (vi)yes) | (~mask & (vi)no)); }
IN v flag(vi mask) { return (v)(mask & (vi)all(1.0)); }
IN v v_fabs(v x) { return (v)((vi)x & alli(INT64_MAX)); }
IN v v_neg(v x) { return -x; }
IN v v_copysign(v x, v s) { return (v)(((vi)x & alli(INT64_MAX)) | ((vi)s & alli(INT64_MIN))); }
IN v v_fmin(v a, v b) { return pick(a < b, a, b); }
IN v v_fmax(v a, v b) { return pick(a > b, a, b); }
IN v v_lt(v a, v b) { return flag(a < b); }
IN v v_le(v a, v b) { return flag(a <= b); }
IN v v_eq(v a, v b) { return flag(a == b); }
IN v v_ne(v a, v b) { return flag(a != b); }
IN v v_not(v a) { return flag(a == all(0.0)); }
IN v v_and(v a, v b) { return flag((a != all(0.0)) & (b != all(0.0))); }
IN v v_or(v a, v b) { return flag((a != all(0.0)) | (b != all(0.0))); }
IN v v_if_else_zero(v a, v b) { return (v)((a != all(0.0)) & (vi)b); }
IN v v_sign(v x) { return flag(x > all(0.0)) - flag(x < all(0.0)); }
IN v v_sqrt(v x) { return __builtin_elementwise_sqrt(x); }
IN v v_floor(v x) { return __builtin_elementwise_floor(x); }
IN v v_ceil(v x) { return __builtin_elementwise_ceil(x); }

/* exp(x) - 1 = scale * p + (scale - 1) with p = exp(r) - 1, |r| <= ln(2)/2, scale = 2^k. */
IN void exp_parts(v x, v *p, v *scale) {
    const v magic = all(0x1.8p52);
    x = v_fmin(v_fmax(x, all(-708.0)), all(709.0));
    v t = x * all(0x1.71547652b82fep0) + magic;
    v k = t - magic;
    v r = x - k * all(0x1.62e42fee00000p-1);
    r = r - k * all(0x1.a39ef35793c76p-33);
    v q = all(1.0 / 6227020800.0);
    q = q * r + all(1.0 / 479001600.0);
    q = q * r + all(1.0 / 39916800.0);
    q = q * r + all(1.0 / 3628800.0);
    q = q * r + all(1.0 / 362880.0);
    q = q * r + all(1.0 / 40320.0);
    q = q * r + all(1.0 / 5040.0);
    q = q * r + all(1.0 / 720.0);
    q = q * r + all(1.0 / 120.0);
    q = q * r + all(1.0 / 24.0);
    q = q * r + all(1.0 / 6.0);
    q = q * r + all(0.5);
    *p = r * r * q + r;
    *scale = (v)(((vi)t - (vi)magic + alli(1023)) << 52);
}
IN v v_exp(v x) {
    v p, scale;
    exp_parts(x, &p, &scale);
    return pick(x == x, scale * p + scale, x);
}
IN v v_expm1(v x) {
    v p, scale;
    exp_parts(x, &p, &scale);
    return pick(x == x, scale * p + (scale - all(1.0)), x);
}
/* Not a number below 0, -infinity at 0: a concentration that ran out must show, not be repaired. */
IN v v_log(v x) {
    vi bits = (vi)x;
    vi k = ((bits - alli(0x3fe6a09e667f3bcdLL)) >> 52);
    v m = (v)(bits - (k << 52));
    v e = __builtin_convertvector(k, v);
    v f = m - all(1.0), s = f / (m + all(1.0)), z = s * s;
    v q = all(1.0 / 23.0);
    q = q * z + all(1.0 / 21.0);
    q = q * z + all(1.0 / 19.0);
    q = q * z + all(1.0 / 17.0);
    q = q * z + all(1.0 / 15.0);
    q = q * z + all(1.0 / 13.0);
    q = q * z + all(1.0 / 11.0);
    q = q * z + all(1.0 / 9.0);
    q = q * z + all(1.0 / 7.0);
    q = q * z + all(1.0 / 5.0);
    q = q * z + all(1.0 / 3.0);
    v value = e * all(0x1.62e42fee00000p-1) + (all(2.0) * s + (all(2.0) * s * z * q + e * all(0x1.a39ef35793c76p-33)));
    value = pick(x > all(0.0), value, all(NAN));
    return pick(x == all(0.0), all(-INFINITY), pick(x < all(INFINITY), value, pick(x == x, v_fmax(x, value), x)));
}
IN v v_log1p(v x) { return v_log(all(1.0) + x); }
IN v v_pow(v a, v b) { return pick(a == all(0.0), flag(b == all(0.0)), v_exp(b * v_log(a))); }
IN v v_tanh(v x) {
    v e = v_expm1(all(2.0) * v_fabs(x));
    return v_copysign(e / (e + all(2.0)), x);
}
IN v v_sinh(v x) {
    v e = v_expm1(v_fabs(x));
    return v_copysign(all(0.5) * (e + e / (e + all(1.0))), x);
}
IN v v_cosh(v x) {
    v e = v_exp(v_fabs(x));
    return all(0.5) * (e + all(1.0) / e);
}
IN v v_asinh(v x) {
    v a = v_fabs(x);
    return v_copysign(v_log(a + v_sqrt(a * a + all(1.0))), x);
}
#define LANEWISE1(name) \
    IN v v_##name(v x) { v r; for (int i = 0; i < W; i++) r[i] = name(x[i]); return r; }
#define LANEWISE2(name) \
    IN v v_##name(v x, v y) { v r; for (int i = 0; i < W; i++) r[i] = name(x[i], y[i]); return r; }
LANEWISE1(sin) LANEWISE1(cos) LANEWISE1(tan) LANEWISE1(atan) LANEWISE1(asin) LANEWISE1(acos) LANEWISE1(erf)
LANEWISE2(fmod)

/* Piecewise cubic: n pieces of 5 numbers (knot, c0 .. c3); `guess` holds a piece at or below for every bin
 * of a uniform grid. */
typedef struct { int64_t n, bins; double first, per_bin; const int32_t *guess; const double *piece; } table_t;
static v look_up(const table_t *t, v x) {
    v r;
    for (int i = 0; i < W; i++) {
        double at = (x[i] - t->first) * t->per_bin;
        int64_t bin = at > 0.0 ? (at < (double)t->bins ? (int64_t)at : t->bins - 1) : 0;
        int64_t k = t->guess[bin];
        while (k + 1 < t->n && t->piece[5 * (k + 1)] <= x[i]) k++;
        const double *c = t->piece + 5 * k;
        double d = x[i] - c[0];
        r[i] = c[1] + d * (c[2] + d * (c[3] + d * c[4]));
    }
    return r;
}
