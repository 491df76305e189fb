//! A program that only reads firmware, for measuring its size. It parses the devicetree and looks
//! up the route for a device's messages, but has no drivers.
#![no_std]
#![no_main]

use core::hint::black_box;
use gic_firmware::devicetree;
use image_rt::Boot;
use minimal::size::{self, REQUESTER};

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    size::read_devicetree(boot, |blob| {
        let description = devicetree::parse(blob)?;
        let host = description.hosts.first().ok_or("firmware describes no PCI")?;
        black_box(description.route(host, REQUESTER)?);
        black_box(&description);
        Ok(())
    })
}
