//! Tests of the limits of the LPI tables: every implemented LPI can be mapped, the last one works,
//! and no further LPI exists.

use crate::machine::{LAST_UNHANDLED, Machine, NamedTest, UNHANDLED};
use crate::report::{Outcome, check, skip};
use crate::soft_device::send;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;
use gic_driver::its::EventRequest;
use gic_driver::{Its, ItsError};
use image_rt::cpu;
use msi_types::{Attachment, Cpu, DeviceId, HwIrqBlock, MsiMessage};

pub(super) const TESTS: &[NamedTest] =
    &[("every LPI can be mapped, and not one more", all_of_them)];

type QemuIts = Its<image_rt::platform::Kernel>;

fn map(its: &QemuIts, device: &Attachment, count: u16) -> Result<HwIrqBlock, ItsError> {
    let count = NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN);
    let request = EventRequest::new(count, Cpu::new(0));
    its.map_events(device, request)
}

fn all_of_them(machine: &Machine) -> Outcome {
    let Some(its) = &machine.its else { skip!("no ITS") };
    let free = its.lpis().available();
    check!(free == its.lpis().count(), "{free} of {} LPIs are free", its.lpis().count());
    let device = its.attach(DeviceId::new(0), free)?;
    let block = map(its, &device, u16::try_from(free)?)?;
    let extra = its.attach(DeviceId::new(0xfff8), 1)?;
    let refused = map(its, &extra, 1);
    its.detach(extra);
    check!(
        matches!(refused, Err(ItsError::NoLpis { wanted: 1 })),
        "result for one more LPI: {refused:?}"
    );
    for index in [0, free - 1] {
        let before = UNHANDLED.load(Ordering::Acquire);
        send(MsiMessage { address: its.doorbell(), data: index });
        cpu::wait_until(2000, || UNHANDLED.load(Ordering::Acquire) > before);
        let (wanted, last) = (8192 + index, LAST_UNHANDLED.load(Ordering::Acquire));
        let arrived = UNHANDLED.load(Ordering::Acquire) - before;
        check!(
            (arrived, last) == (1, wanted),
            "for LPI {wanted}: {arrived} interrupts arrived, the last was {last}"
        );
    }
    its.unmap_events(&device, block);
    its.detach(device);
    check!(its.lpis().available() == free, "{} of {free} LPIs were freed", its.lpis().available());
    check!(its.faults().0 == 0, "{:?}", its.faults());
    Ok(())
}
