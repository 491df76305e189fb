//! The model in a virtual machine monitor: guest memory by `vm-memory`, a vCPU's thread, and a device's thread that
//! rings a direct LPI. The guest is a list of exits.

use gic_arch::{gicr, icc};
use msi_types::{Cpu, Kick, MsiMessage, NoIdentity, SignalMsi};
use std::sync::Arc;
use std::thread::{self, Thread};
use vgic::AccessWidth::{Double, Word};
use vgic::{AccessWidth, Sleep, Vcpu, Vgic, VgicConfig, VmMemory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Why the guest exits.
enum Exit {
    Mmio(u64, AccessWidth, u64),
    Msr(icc::SysRegEncoding, u64),
    Wfi,
    Mrs(icc::SysRegEncoding),
}

/// Ends a vCPU's sleep.
struct Unpark(Thread);

impl Kick for Unpark {
    fn kick(&self, _: Cpu) {
        self.0.unpark();
    }
}

fn run(vcpu: &mut Vcpu, exit: &Exit) -> Result<Option<u64>, Box<dyn std::error::Error>> {
    match *exit {
        Exit::Mmio(address, width, value) => vcpu.vgic().write(address, width, value)?,
        Exit::Msr(register, value) => vcpu.write_sysreg(register, value)?,
        Exit::Mrs(register) => return Ok(Some(vcpu.read_sysreg(register)?)),
        Exit::Wfi => {
            while vcpu.prepare_to_sleep() == Sleep::Ready {
                thread::park();
                vcpu.returned();
            }
        }
    }
    Ok(None)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x4000_0000), 1 << 20)])?);
    let config = VgicConfig { direct_lpi: true, lpi_id_bits: Some(14), ..VgicConfig::new(1) };
    let (distributor, redistributor) = (config.distributor, config.redistributors[0].base);
    let kick = Arc::new(Unpark(thread::current()));
    let (gic, mut vcpus) = Vgic::new(config, Arc::new(VmMemory(ram.clone())), kick)?;

    ram.write_obj(0xa1u8, GuestAddress(0x4000_0000))?; // LPI 8192: enabled, priority 0xa0
    let device = thread::spawn(move || {
        let message = MsiMessage { address: redistributor + u64::from(gicr::SETLPIR.offset()), data: 8192 };
        while gic.signal_msi(NoIdentity, message) != msi_types::Delivery::Pending {} // until LPIs are enabled
    });
    for exit in [
        Exit::Mmio(distributor, Word, 2),
        Exit::Mmio(redistributor + u64::from(gicr::WAKER.offset()), Word, 0),
        Exit::Mmio(redistributor + u64::from(gicr::PROPBASER.offset()), Double, 0x4000_000d),
        Exit::Mmio(redistributor + u64::from(gicr::PENDBASER.offset()), Double, 0x4001_0000),
        Exit::Msr(icc::PMR.encoding(), 0xff),
        Exit::Msr(icc::IGRPEN1.encoding(), 1),
        Exit::Mmio(redistributor, Word, 1),
        Exit::Wfi,
    ] {
        run(&mut vcpus[0], &exit)?;
    }
    let acknowledged = run(&mut vcpus[0], &Exit::Mrs(icc::IAR1.encoding()))?;
    run(&mut vcpus[0], &Exit::Msr(icc::EOIR1.encoding(), 8192))?;
    assert_eq!(acknowledged, Some(8192));
    println!("the guest took LPI 8192");
    device.join().map_err(|_| "the device's thread panicked".into())
}
