/* Reason codes of the update chain: the rows of ota/errors.py that the controller can give, same names and numbers
 * (held equal by tests/agreement). 0 accepted, 1xx form, 2xx trust, 3xx fitness, 4xx delta, 5xx device, 6xx deferred. */
#ifndef OTA_REASON_H
#define OTA_REASON_H

#define OTA_REASON_LIST(X)              \
    X(OK, 0)                            \
    X(FORMAT, 100)                      \
    X(TRUNCATED, 101)                   \
    X(TRAILING_DATA, 102)               \
    X(OVERSIZE, 103)                    \
    X(NESTING, 104)                     \
    X(NOT_CANONICAL, 105)               \
    X(DUPLICATE_FIELD, 106)             \
    X(MISSING_FIELD, 107)               \
    X(UNKNOWN_FIELD, 108)               \
    X(UNSUPPORTED_VERSION, 109)         \
    X(CHECKSUM, 110)                    \
    X(SIGNATURE, 200)                   \
    X(SIGNATURE_MISSING, 201)           \
    X(KEY_UNKNOWN, 202)                 \
    X(ALGORITHM, 204)                   \
    X(DIGEST, 206)                      \
    X(LENGTH, 207)                      \
    X(EXPIRED, 208)                     \
    X(ROLLBACK, 209)                    \
    X(WRONG_DEVICE, 215)                \
    X(MERKLE, 217)                      \
    X(HARDWARE, 300)                    \
    X(HARDWARE_REVISION, 301)           \
    X(VENDOR, 302)                      \
    X(LOAD_ADDRESS, 303)                \
    X(SECURITY_COUNTER_LOW, 304)        \
    X(SECURITY_COUNTER_MISSING, 305)    \
    X(SECURITY_COUNTER_CAPACITY, 306)   \
    X(DEPENDENCY, 309)                  \
    X(PARAMETER_SCHEMA, 310)            \
    X(PARAMETER_RANGE, 311)             \
    X(PARAMETER_PAIR, 312)              \
    X(SLOT_SIZE, 314)                   \
    X(BLACKLISTED, 315)                 \
    X(INCOMPLETE_SET, 316)              \
    X(NOT_BOOTABLE, 317)                \
    X(DELTA_BASE, 400)                  \
    X(DELTA_CODEC, 401)                 \
    X(DELTA_OUTPUT, 402)                \
    X(DELTA_CORRUPT, 403)               \
    X(FLASH_PROGRAM, 500)               \
    X(FLASH_ERASE, 501)                 \
    X(FLASH_READ, 502)                  \
    X(SELF_TEST, 503)                   \
    X(BOOT_ATTEMPTS, 504)               \
    X(BUSY, 506)                        \
    X(DEFER_CHARGING, 600)              \
    X(DEFER_CONTACTORS, 601)            \
    X(DEFER_SOC_LOW, 602)               \
    X(DEFER_SUPPLY_LOW, 603)            \
    X(DEFER_FAULT_ACTIVE, 604)          \
    X(UNKNOWN_DEPLOYMENT, 800)          \
    X(TOO_LATE_TO_CANCEL, 803)

#define OTA_REASON_ROW(name, number) OTA_##name = number,
enum { OTA_REASON_LIST(OTA_REASON_ROW) };

/* Leave the function with the first reason that is not OK. */
#define TRY(expression)                         \
    do {                                        \
        const uint32_t try_reason = expression; \
        if (try_reason != OTA_OK) {             \
            return try_reason;                  \
        }                                       \
    } while (0)

#define REQUIRE(condition, why) TRY((condition) ? OTA_OK : (why))

#endif
