"""What the demo's guest runs: shell scripts for the tiny guest, which finds its disks by their slots.

They print ``@@found MODE clean`` (or ``infected``) for each disk as they find it, and ``@@says TEXT`` for the
audience.
"""

from __future__ import annotations

from drivebay.registry.medium import MediumType

# In the order of their ports.
MODES = {
    "normal": MediumType.NORMAL,
    "immutable": MediumType.IMMUTABLE,
    "write-through": MediumType.WRITETHROUGH,
}
LETTER_NAME = "letter.txt"
LETTER = "Dear reader, this disk is clean."

_LOOK_AT = f"""
look_at() {{
    text=$(cat /mnt/{LETTER_NAME})
    echo "@@says on the $1 disk I read: $text"
    verdict=clean
    [ "$text" = "{LETTER}" ] && [ ! -e /mnt/virus.bin ] || verdict=infected
    echo "@@found $1 $verdict"
}}
"""


def _for_each_disk(commands: str) -> str:
    return f"""{_LOOK_AT}
port=0
for mode in {" ".join(MODES)}; do
    {commands}
    umount /mnt
    port=$((port + 1))
done
"""


# The journal is left alone, so that a look changes nothing.
LOOK = _for_each_disk("""
    mount -t ext4 -o ro,noload "/dev/slot/SATA:$port:0" /mnt
    look_at "$mode"
""")

INFECT = _for_each_disk(f"""
    mount -t ext4 "/dev/slot/SATA:$port:0" /mnt
    look_at "$mode"
    echo "All your files belong to the virus." > /mnt/{LETTER_NAME}
    dd if=/dev/urandom of=/mnt/virus.bin bs=64k count=32 2>/dev/null
    sync
    echo "@@says a virus came. Now I read: $(cat /mnt/{LETTER_NAME})"
""")
