//! A hypervisor at EL2, whose guest takes a timer interrupt from a list register. The example
//! simulates the virtual CPU interface, which is `ICH_*_EL2` on hardware.

use gic_arch::ich::{ListRegisterState, Vtr};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use std::{error::Error, sync::Arc};
use vgic::{AccessWidth, GuestMemory, MemoryFault};
use vgic::{ListRegisterVcpu, Vgic, VgicConfig, VirtualInterface};

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

/// Creates a GIC with one vCPU, which runs on CPUs whose `ICH_VTR_EL2` is `vtr`.
fn create(vtr: Vtr) -> Result<(Arc<Vgic>, ListRegisterVcpu), Box<dyn Error>> {
    let config = VgicConfig::new(1)
        .with_priority_bits(vtr.pri_bits_minus_one() + 1)
        .with_awake_redistributors(true);
    let kick = Arc::new(|cpu: Cpu| println!("an IPI to the CPU that runs vCPU {cpu}"));
    let (gic, mut vcpus) = Vgic::new(config, Arc::new(NoMemory), kick)?;
    let vcpu = vcpus.remove(0).with_list_registers(vtr)?;
    Ok((gic, vcpu))
}

/// Enters the guest once. `run` loads the interface into `ICH_*_EL2`, runs the guest until it
/// exits, and stores the interface.
fn run_once(vcpu: &mut ListRegisterVcpu, run: impl FnOnce(&mut VirtualInterface)) {
    let inside = vcpu.enter();
    let mut interface = *inside.interface();
    run(&mut interface);
    inside.exit(&interface);
}

fn main() -> Result<(), Box<dyn Error>> {
    // A CPU with four list registers and 5 priority bits.
    let vtr = Vtr::new().with_list_regs_minus_one(3).with_pri_bits_minus_one(4);
    let (gic, mut vcpu) = create(vtr.with_pre_bits_minus_one(4).with_tds(true))?;

    // Register writes of the guest's driver, as the hypervisor forwards them from aborts and traps.
    let timer = IntId::ppi(11).ok_or("there are 16 PPIs")?;
    let write = |address, value| gic.write_until_done(address, AccessWidth::Word, value);
    write(gic.config().distributor + u64::from(gicd::CTLR.offset()), 2)?;
    for array in [gicr::IGROUPR, gicr::ISENABLER] {
        let bit = array.locate(timer).ok_or("a PPI is at its redistributor")?;
        let register = u64::from(bit.register().offset());
        write(gic.config().redistributors[0].base + register, bit.mask().into())?;
    }
    vcpu.write_sysreg(icc::PMR.encoding(), 0xff)?;
    vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1)?;

    let set = |level| gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: timer.get() }, level);
    set(Level::High);
    run_once(&mut vcpu, |interface| {
        let listed = &mut interface.list[0];
        println!("the guest is entered with INTID {} {:?}", listed.virtual_intid(), listed.state());
        assert_eq!((listed.virtual_intid(), listed.state()), (27, ListRegisterState::Pending));
        // The guest acknowledges the interrupt, rearms the timer, and ends the interrupt, all
        // without an exit.
        set(Level::Low);
        listed.set_state(ListRegisterState::Invalid);
    });
    run_once(&mut vcpu, |interface| {
        assert_eq!(interface.list[0].state(), ListRegisterState::Invalid);
    });
    Ok(())
}
