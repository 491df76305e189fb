use super::vmm::{Exit, GuestCpu, KickFlag, Vm, run};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use vgic_monitor::gic_arch::icc;
use vgic_monitor::irq_routing::{Change, Pin, Route, Routing};
use vgic_monitor::msi_types::Level;
use vgic_monitor::vgic::{AccessWidth, Inputs, VmMemory};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Stands in for a hypervisor's vCPU: exits as listed, then sleeps until an interrupt arrives.
struct Script {
    exits: VecDeque<Exit>,
    taken: Sender<u64>,
}

impl GuestCpu for Script {
    fn run(&mut self, inputs: Inputs, kick: &KickFlag) -> Exit {
        if kick.take() {
            Exit::Kicked
        } else if let Some(exit) = self.exits.pop_front() {
            exit
        } else if inputs.irq {
            Exit::Mrs(icc::IAR1.encoding())
        } else {
            Exit::Wfi
        }
    }

    fn complete(&mut self, intid: u64) {
        self.exits.push_back(Exit::Msr(icc::EOIR1.encoding(), intid));
        self.taken.send(intid).unwrap();
    }

    fn inject_undefined(&mut self) {
        panic!("the script uses no other register");
    }
}

/// A guest's writes that enable SPI 33 at vCPU 0.
const WRITES: [(u64, u64); 5] = [
    (0x080a_0014, 0),    // GICR_WAKER
    (0x0800_0000, 0x12), // GICD_CTLR: affinity routing, Group 1
    (0x0800_0084, 2),    // GICD_IGROUPR1
    (0x0800_6108, 0),    // GICD_IROUTER33
    (0x0800_0104, 2),    // GICD_ISENABLER1
];

pub fn main() -> Result<(), Box<dyn Error>> {
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x4000_0000), 1 << 20)])?;
    let (machine, mut vcpus) = Vm::new(Arc::new(VmMemory(Arc::new(ram))))?;
    let gsi = machine.router.allocate()?;
    machine.router.commit(&[Change::Set(gsi, Route::Pin(Pin::of_spi(33)?))])?;

    let (taken, is_taken) = channel();
    let script = |exits| Script { exits, taken: taken.clone() };
    let mut cpus = [const { VecDeque::new() }; 4].map(script);
    let write = |(address, value)| Exit::Write(address, AccessWidth::Word, value);
    cpus[0].exits.extend(WRITES.map(write));
    cpus[0].exits.push_back(Exit::Msr(icc::PMR.encoding(), 0xf0));
    cpus[0].exits.push_back(Exit::Msr(icc::IGRPEN1.encoding(), 1));
    run(&machine, &mut vcpus, &mut cpus, || {
        machine.router.set_level(gsi, Level::High).unwrap();
        println!("the guest took SPI {}", is_taken.recv().unwrap());
        machine.router.set_level(gsi, Level::Low).unwrap();
    });
    let state = machine.parts().save(&mut vcpus, Duration::from_secs(1))?;
    println!("saved {} vCPUs", state.gic.cpus.len());
    Ok(())
}
