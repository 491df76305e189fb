//! The runtime that all kernels here share, without anything else, for measuring its size.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;
use core::hint::black_box;
use image_rt::{Boot, power, start};
use minimal as _;

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the unchanged argument, and nothing uses RAM behind the image yet.
    let started = unsafe { start::start(boot) };
    read(started.devicetree).expect("a devicetree");
    power::system_off()
}

/// Reads the devicetree's bytes, and uses the heap and errors, as the other kernels do.
fn read(blob: &[u8]) -> Result<(), Box<dyn Error>> {
    let copy: Box<[u8]> = Box::from(blob);
    black_box(copy.first().ok_or("an empty devicetree")?);
    Ok(())
}
