//! A hypervisor at EL2, whose guest takes a timer interrupt from a list register. The example
//! simulates the virtual CPU interface, which is `ICH_*_EL2` on hardware.

use gic_arch::ich::{ListRegisterState, Vtr};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use std::{error::Error, sync::Arc};
use vgic::{AccessWidth, GuestMemory, MemoryFault, Vgic, VgicConfig};

/// A guest without LPIs needs no access to memory.
struct NoMemory;

impl GuestMemory for NoMemory {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = VgicConfig::new(1);
    let (distributor, redistributor) = (config.distributor, config.redistributors[0].base);
    let kick = Arc::new(|cpu: Cpu| println!("an IPI to the CPU that runs vCPU {cpu}"));
    let (gic, mut vcpus) = Vgic::new(config, Arc::new(NoMemory), kick)?;
    // `ICH_VTR_EL2` of a CPU with four list registers and 5 priority bits.
    let vtr = Vtr::new().with_list_regs_minus_one(3).with_pri_bits_minus_one(4);
    let vtr = vtr.with_pre_bits_minus_one(4).with_tds(true);
    let mut vcpu = vcpus.remove(0).with_list_registers(vtr)?;

    // Register writes of the guest's driver, as the hypervisor forwards them from aborts and traps.
    let timer = IntId::ppi(11).ok_or("there are 16 PPIs")?;
    let write = |address, value| gic.write_until_done(address, AccessWidth::Word, value);
    write(distributor + u64::from(gicd::CTLR.offset()), 2)?;
    write(redistributor + u64::from(gicr::WAKER.offset()), 0)?;
    for array in [gicr::IGROUPR, gicr::ISENABLER] {
        let bit = array.locate(timer).ok_or("a PPI is at its redistributor")?;
        write(redistributor + u64::from(bit.register().offset()), bit.mask().into())?;
    }
    vcpu.write_sysreg(icc::PMR.encoding(), 0xff)?;
    vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1)?;

    gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: timer.get() }, Level::High);
    let inside = vcpu.enter();
    let mut interface = *inside.interface();
    let listed = interface.list[0];
    println!("the guest is entered with INTID {} {:?}", listed.virtual_intid(), listed.state());
    assert_eq!((listed.virtual_intid(), listed.state()), (27, ListRegisterState::Pending));

    // The guest acknowledges the interrupt, rearms the timer, and ends the interrupt, all without
    // an exit.
    gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: timer.get() }, Level::Low);
    interface.list[0].set_state(ListRegisterState::Invalid);
    inside.exit(&interface);
    assert_eq!(vcpu.enter().interface().list[0].state(), ListRegisterState::Invalid);
    Ok(())
}
