//! Compares rings with a queue, and tests them against a hostile peer and between threads.

mod hostile;
mod layout;
mod model;
mod overtaken;
#[cfg(target_os = "linux")]
mod threads;

use hyperv_vpci::ring::HeapRing;
use std::num::NonZeroU8;

fn ring(pages: u8) -> HeapRing {
    HeapRing::new(NonZeroU8::new(pages).expect("a ring has pages")).expect("the heap has room")
}
