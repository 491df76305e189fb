//! Attacks through the register frames.

use crate::machine::{self, GICD, GICR, ITS, Layout};
use crate::random::Random;
use crate::turns::Turns;
use gic_arch::{gicd, gicr, gits};

/// Address and size in bytes of each frame.
const FRAMES: [(u64, u64); 4] = [
    (GICD, gicd::FRAME_SIZE),
    (ITS, gits::SIZE),
    (GICR, gicr::STRIDE_V3),
    (GICR, 2 * gicr::STRIDE_V3),
];

/// Reads and writes the frames at any address, with any width and alignment.
pub(crate) fn any(turns: &mut Turns) {
    let mut random = Random::here();
    while turns.next() {
        let (base, bytes) = FRAMES[random.below(4) as usize];
        // Most registers are at the start of a 64 KiB page of the frame.
        let end = if random.below(2) == 0 { bytes } else { 0x400 };
        let address =
            base + random.below(bytes / 0x1_0000) * 0x1_0000 + random.below(end) % 0x1_0000;
        let width = 1 << random.below(4);
        let address = if random.below(4) == 0 { address } else { address & !(width - 1) };
        if random.below(3) == 0 {
            machine::read(address, width as u8);
        } else {
            machine::write(address, width as u8, random.value());
        }
    }
}

/// Accesses registers of pending and active state. Each read makes every vCPU exit.
pub(crate) fn of_state(turns: &mut Turns) {
    /// `GICD_ISPENDR<n>` to `GICD_ICACTIVER<n>`.
    const FIRST: u64 = 0x200;
    const BYTES: u64 = 0x200;
    machine::enable_interrupts();
    let mut random = Random::here();
    while turns.next() {
        let offset = FIRST + (random.below(BYTES) & !3);
        let private = GICR + u64::from(gicr::SGI_BASE) + random.below(2) * gicr::STRIDE_V3;
        machine::write(private + offset, 4, random.value());
        machine::read(private + offset, 4);
        machine::write(GICD + offset, 4, random.value());
        machine::read(GICD + offset, 4);
    }
}

/// Repeatedly enables and disables LPIs, with all bits set in the pending table.
pub(crate) fn many_pending(turns: &mut Turns) {
    let layout = Layout::apart();
    machine::enable_interrupts();
    machine::fill(layout.configuration, 0x1_0000, 0xa1);
    while turns.next() {
        machine::fill(layout.pending, 0x2_0000, 0xff);
        machine::set_lpis(layout, true);
        for _ in 0..8 {
            machine::take();
        }
        machine::set_lpis(layout, false);
    }
}
