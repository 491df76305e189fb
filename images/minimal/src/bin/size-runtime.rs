//! A program that only contains the runtime shared by all kernels here, for measuring its size. It
//! reads the devicetree's bytes, and uses the heap and errors, as the other kernels do.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::hint::black_box;
use image_rt::Boot;
use minimal::size;

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    size::read_devicetree(boot, |blob| {
        let copy: Box<[u8]> = Box::from(blob);
        black_box(copy.first().ok_or("an empty devicetree")?);
        Ok(())
    })
}
