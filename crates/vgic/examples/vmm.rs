//! The model in a VMM that uses `vm-memory`: a device thread signals a direct LPI. The guest is
//! represented by a list of exits.

use gic_arch::{gicr, icc};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use std::{error::Error, sync::Arc, thread};
use vgic::{AccessWidth, Sleep, Vcpu, Vgic, VgicConfig, VmMemory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Exit of the guest.
enum Exit {
    Mmio(u64, AccessWidth, u64),
    Msr(icc::SysRegEncoding, u64),
    Wfi,
}

fn handle(exit: &Exit, vcpu: &mut Vcpu) -> Result<(), Box<dyn Error>> {
    match *exit {
        Exit::Mmio(address, width, value) => vcpu.vgic().write_until_done(address, width, value)?,
        Exit::Msr(register, value) => vcpu.write_sysreg(register, value)?,
        Exit::Wfi => {
            while vcpu.prepare_to_sleep() == Sleep::Ready {
                thread::park();
                vcpu.returned();
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x4000_0000), 1 << 20)])?;
    ram.write_obj(0xa1u8, GuestAddress(0x4000_0000))?; // LPI 8192: enabled, priority 0xa0
    let config = VgicConfig::new(1).with_direct_lpi(true).with_lpi_id_bits(Some(14));
    let (distributor, redistributor) = (config.distributor, config.redistributors[0].base);
    let vcpu_thread = thread::current();
    let kick = Arc::new(move |_| vcpu_thread.unpark());
    let (gic, mut vcpus) = Vgic::new(config, Arc::new(VmMemory(Arc::new(ram))), kick)?;

    let message =
        MsiMessage { address: redistributor + u64::from(gicr::SETLPIR.offset()), data: 8192 };
    // Messages are dropped until LPIs are enabled.
    thread::spawn(move || while gic.signal_msi(NoIdentity, message) != Delivery::Pending {});

    let word = |offset: u32, value| {
        Exit::Mmio(redistributor + u64::from(offset), AccessWidth::Word, value)
    };
    let frames = [Exit::Mmio(distributor, AccessWidth::Word, 2), word(gicr::WAKER.offset(), 0)];
    let tables =
        [word(gicr::PROPBASER.offset(), 0x4000_000d), word(gicr::PENDBASER.offset(), 0x4001_0000)];
    let interface = [Exit::Msr(icc::PMR.encoding(), 0xff), Exit::Msr(icc::IGRPEN1.encoding(), 1)];
    let enable_and_wait = [word(gicr::CTLR.offset(), 1), Exit::Wfi];
    let mut guest = frames.into_iter().chain(tables).chain(interface).chain(enable_and_wait);
    guest.try_for_each(|exit| handle(&exit, &mut vcpus[0]))?;
    assert_eq!(vcpus[0].read_sysreg(icc::IAR1.encoding())?, 8192);
    println!("the guest took LPI 8192");
    Ok(vcpus[0].write_sysreg(icc::EOIR1.encoding(), 8192)?)
}
