"""A network boot program: loaded by PXE, it writes itself, every byte of its file, to the debug port of QEMU.

What leaves that port is the file as it arrived in the machine's memory, for a test to compare with the one that was
served. It is assembled by hand, because no test may ask for an assembler; behind its code there is only noise. It must
never be longer than base memory has room for. Called by the interoperability tests only.
"""

import random
import struct

DEBUG_PORT = 0xE9  # QEMU's isa-debugcon; firmware writes nothing to it
# PXE 2.1, section 4.4.5: loaded whole at 0:7C00. Base memory ends at 640 KiB, and the firmware keeps its upper end.
SIZE_MAX = 500 * 1024
_PARAGRAPH_BYTES = 16


def boot_program(size_bytes: int) -> bytes:
    """The program as a file of `size_bytes`: its code, then noise that differs with the size."""
    code = _code(size_bytes)
    if not len(code) <= size_bytes <= SIZE_MAX:
        raise ValueError(f"a boot program has {len(code)} to {SIZE_MAX} bytes, not {size_bytes}")
    return code + random.Random(size_bytes).randbytes(size_bytes - len(code))


def _code(size_bytes: int) -> bytes:
    """16-bit real mode, entered by a far call. A segment reaches 64 KiB only, so DS moves on paragraph by paragraph."""
    paragraphs, rest = divmod(size_bytes, _PARAGRAPH_BYTES)
    return b"".join(
        [
            b"\x60",  #                                        pusha              give all back as it was
            b"\x1e",  #                                        push ds
            b"\xfc",  #                                        cld                outsb counts upwards
            b"\xb8\xc0\x07",  #                                mov ax, 0x07c0     0x07c0:0 is 0:0x7c00
            b"\x8e\xd8",  #                                    mov ds, ax
            b"\xba" + struct.pack("<H", DEBUG_PORT),  #        mov dx, DEBUG_PORT
            b"\xbd" + struct.pack("<H", paragraphs),  #        mov bp, paragraphs
            b"\x31\xf6",  #                             next:  xor si, si
            b"\xb9" + struct.pack("<H", _PARAGRAPH_BYTES),  #  mov cx, 16
            b"\xf3\x6e",  #                                    rep outsb          ds:si, cx bytes, to port dx
            b"\x8c\xd8",  #                                    mov ax, ds
            b"\x40",  #                                        inc ax
            b"\x8e\xd8",  #                                    mov ds, ax
            b"\x4d",  #                                        dec bp
            b"\x75\xf1",  #                                    jnz next           15 bytes back, these two included
            b"\x31\xf6",  #                                    xor si, si
            b"\xb9" + struct.pack("<H", rest),  #              mov cx, rest       0 to 15
            b"\xf3\x6e",  #                                    rep outsb          nothing where cx is 0
            b"\x1f",  #                                        pop ds
            b"\x61",  #                                        popa
            b"\x31\xc0",  #                                    xor ax, ax         status 0: iPXE's script goes on
            b"\xcb",  #                                        retf
        ]
    )
