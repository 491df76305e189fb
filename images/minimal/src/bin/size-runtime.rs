//! A kernel with only the runtime that all kernels of this package share, for measuring its size.
//! Like the other kernels, this one reads the devicetree and uses the heap and error formatting.
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
