//! A kernel whose only MSI controller are the redistributors, to measure how large it is.
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
