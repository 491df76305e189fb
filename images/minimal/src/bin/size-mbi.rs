//! A kernel that uses only message-based SPIs for messages, for measuring its size.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec;
use core::num::NonZeroU16;
use gic_driver::{Mbi, MbiConfig, SpiRange};
use image_rt::Boot;
use minimal::size;
use msi_types::HwIrq;

image_rt::image!(main);

const SPIS: SpiRange =
    SpiRange { first: HwIrq::new(64), count: NonZeroU16::new(64).expect("64 is not zero") };

fn main(boot: Boot) -> ! {
    size::run(boot, |gic| Ok(Arc::new(Mbi::new(gic, MbiConfig::new(vec![SPIS]))?)))
}
