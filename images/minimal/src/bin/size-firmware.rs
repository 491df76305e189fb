//! A program that only parses firmware's description, without any driver, for measuring its size.
//! It parses the devicetree and finds the route of a device's messages.
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
