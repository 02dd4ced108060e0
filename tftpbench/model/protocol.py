"""What the RFCs of TFTP fix and people read: the port, and the meaning of each ERROR."""

PORT = 69  # RFC 1350 section 4

# RFC 1350 section 5, and 8 of RFC 2347; `ErrorCode::meaning` of the native core has the same, and a test compares them.
ERRORS = {
    0: "not defined",
    1: "file not found",
    2: "access violation",
    3: "disk full",
    4: "illegal operation",
    5: "unknown transfer ID",
    6: "file already exists",
    7: "no such user",
    8: "option refused",
}
