//! ivshmem with doorbells. When we ring one of the peer's vectors, the peer rings our vector with
//! the same number.

use crate::driver::Driver;
use crate::report::{Verdict, check};
use image_rt::pci::{Bar, Function};
use irq_domain::pci::TableMemory;

const OWN_ID: u64 = 8;
const DOORBELL: u64 = 12;
/// The peer's number. The peer is the test runner's process.
const PEER: u32 = 1;
const VECTORS: u16 = 4;

/// An ivshmem device.
pub(crate) struct Ivshmem(Bar);

impl Ivshmem {
    pub(crate) fn new(function: &Function) -> Self {
        Self(function.bar(0))
    }
}

impl Driver for Ivshmem {
    fn vectors(&self) -> u16 {
        VECTORS
    }

    fn prompt(&self, _: u16) -> bool {
        false
    }

    /// Rings the peer. The peer then rings us.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        check!(self.0.read32(OWN_ID) != PEER, "the peer's number is ours");
        self.0.write32(DOORBELL, PEER << 16 | u32::from(slot));
        Ok(true)
    }
}
