//! The reader of firmware's description without any driver, for measuring its size: it reads the
//! devicetree, and finds the route of a device's messages.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;
use core::hint::black_box;
use gic_firmware::devicetree;
use image_rt::{Boot, power, start};
use minimal::size::REQUESTER;

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the unchanged argument, and nothing uses RAM behind the image yet.
    let started = unsafe { start::start(boot) };
    read(started.devicetree).expect("a GIC and a route to it");
    power::system_off()
}

fn read(blob: &[u8]) -> Result<(), Box<dyn Error>> {
    let description = devicetree::parse(blob)?;
    let host = description.hosts.first().ok_or("firmware describes no PCI")?;
    black_box(description.route(host, REQUESTER)?);
    black_box(&description);
    Ok(())
}
