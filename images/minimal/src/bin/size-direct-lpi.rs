//! A kernel that uses only direct LPIs for messages, for measuring its size.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use gic_driver::DirectLpi;
use image_rt::Boot;
use minimal::size;

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    size::run(boot, |gic| Ok(Arc::new(DirectLpi::new(Arc::clone(gic))?)))
}
