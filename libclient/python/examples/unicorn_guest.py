#!/usr/bin/env python3
"""A Unicorn emulator in Python whose RAM is leased from memctld, and an asyncio loop that hears what memctld tells.

The guest writes a number into each page of 16 MiB, and adds them up; python3 unicorn_guest.py [ROUNDS]."""
import asyncio
import ctypes
import sys

import memctl
from unicorn import UC_ARCH_X86, UC_MODE_64, UC_PROT_ALL, Uc
from unicorn.x86_const import UC_X86_REG_RAX, UC_X86_REG_RDI, UC_X86_REG_RDX

RAM = 16 << 20
PAGES = RAM // 4096
GUEST = bytes.fromhex(
    "4889fe"            #     mov %rdi, %rsi      first page
    "31c9"              #     xor %ecx, %ecx
    "48ffc1"            # 1:  inc %rcx
    "48890e"            #     mov %rcx, (%rsi)
    "4881c600100000"    #     add $4096, %rsi
    "4839d6"            #     cmp %rdx, %rsi      end of RAM
    "72ee"              #     jb 1b
    "31c0"              #     xor %eax, %eax
    "480307"            # 2:  add (%rdi), %rax
    "4881c700100000"    #     add $4096, %rdi
    "4839d7"            #     cmp %rdx, %rdi
    "72f1"              #     jb 2b
    "f4")               #     hlt


def run(ram):
    """What the guest counted."""
    with ram.view() as memory:
        memory[:len(GUEST)] = GUEST
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    # one call: the lease is the guest's memory.  (Uc.mem_map_ptr of some versions wants a ctypes pointer.)
    uc.mem_map_ptr(ram.gpa, len(ram), UC_PROT_ALL, ctypes.c_void_p(ram.address))
    uc.reg_write(UC_X86_REG_RDI, 4096)
    uc.reg_write(UC_X86_REG_RDX, RAM)
    uc.emu_start(0, len(GUEST))
    return uc.reg_read(UC_X86_REG_RAX)


async def tell(m):
    async for event in m.watch():
        print("memctld: %s" % event.kind.name.lower(), flush=True)


async def main(rounds):
    with memctl.Memctl() as m:
        m.register("unicorn-python", RAM)
        m.helper_start()
        telling = asyncio.create_task(tell(m))
        with m.lease(0, RAM) as ram:
            for _ in range(rounds):
                # ctypes lets this loop run while the guest does
                counted = await asyncio.get_running_loop().run_in_executor(None, run, ram)
                print("the guest counted %d, %s" % (counted, "right" if counted == PAGES * (PAGES - 1) // 2 else "wrong"), flush=True)
        telling.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
