//! A kernel whose only MSI controller is an ITS, for measuring its size.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use gic_driver::its::IdMap;
use gic_driver::{Its, ItsConfig, ItsMsiParent};
use image_rt::Boot;
use minimal::size;

image_rt::image!(main);

/// ITS address on QEMU's `virt`.
const ITS: u64 = 0x0808_0000;

fn main(boot: Boot) -> ! {
    size::run(boot, |gic| {
        let its = Arc::new(Its::new(Arc::clone(gic), &ItsConfig::new(ITS, 1))?);
        for cpu in gic.cpus() {
            its.cpu_on(cpu)?;
        }
        Ok(Arc::new(ItsMsiParent::new(its, IdMap::identity())))
    })
}
