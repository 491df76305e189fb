//! A kernel with one CPU brings up the GIC that firmware describes, and takes an interrupt of its
//! UART. The model `vgic` is the hardware.

use gic_arch::{Affinity, icc::SysRegEncoding};
use gic_bringup::Irqchip;
use gic_driver::{Coherence, GicPlatform, Mmio, PhysicalRegion, Platform};
use gic_driver::{SystemRegisters, Table, TableLayout, Wait};
use gic_firmware::{CpuNode, Description, Gic, Region};
use irq_domain::{Host, WiredRequest};
use msi_types::{Cpu, HwIrq, IrqState, Line, LocalCpu, SetLine, TaskContext, Trigger};
use std::{cell::RefCell, error::Error, ops::Range, sync::Arc};
use vgic::AccessWidth::{self, Byte, Double, Word};
use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

struct Kernel(Arc<Vgic>);
/// Registers from an address.
struct Frame(Arc<Vgic>, u64);
/// System registers of the CPU.
struct Registers(RefCell<Vcpu>);
struct Ram;

impl Frame {
    fn load(&self, offset: u32, width: AccessWidth) -> u64 {
        self.0.read(self.1 + u64::from(offset), width).expect("a register of the GIC")
    }
    fn store(&self, offset: u32, width: AccessWidth, value: u64) {
        let address = self.1 + u64::from(offset);
        self.0.write_until_done(address, width, value).expect("a register of the GIC");
    }
}

impl Mmio for Frame {
    fn read32(&self, offset: u32) -> u32 {
        (self.load(offset, Word) & 0xffff_ffff) as u32
    }
    fn write32(&self, offset: u32, value: u32) {
        self.store(offset, Word, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.load(offset, Double)
    }
    fn write64(&self, offset: u32, value: u64) {
        self.store(offset, Double, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.store(offset, Byte, value.into());
    }
}

impl SystemRegisters for Registers {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        self.0.borrow_mut().read_sysreg(register).expect("a register of the CPU interface")
    }
    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let mut vcpu = self.0.borrow_mut();
        vcpu.write_sysreg(register, value).expect("a register of the CPU interface");
    }
}

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        Some(Cpu::new(0))
    }
}

impl Platform for Kernel {
    type Mmio = Frame;
    fn map(&self, region: PhysicalRegion) -> Option<Frame> {
        Some(Frame(self.0.clone(), region.base))
    }
    fn wait(&self, turn: u32) -> Wait {
        if turn < 1000 { Wait::Again } else { Wait::GiveUp }
    }
}

// This GIC has no LPIs, so the drivers need no tables.
impl GicPlatform for Kernel {
    fn cpu(&self) -> Cpu {
        Cpu::new(0)
    }
    fn affinity(&self) -> Option<Affinity> {
        Some(Affinity::new(0, 0, 0, 0))
    }
    fn allocate_table(&self, _: TableLayout) -> Option<Table> {
        None
    }
    fn release_table(&self, _: Table) {}
    fn store8(&self, _: &Table, _: u64, _: u8) {}
    fn store64(&self, _: &Table, _: u64, _: u64) {}
    fn load8(&self, _: &Table, _: u64) -> u8 {
        0
    }
    fn publish(&self, _: &Table, _: Range<u64>, _: Coherence) {}
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (hardware, mut vcpus) = Vgic::new(VgicConfig::new(1), Arc::new(Ram), Arc::new(|_| ()))?;
    let [distributor, redistributors] = hardware.regions() else { return Err("two frames".into()) };
    let [distributor, redistributors] = [distributor, redistributors].map(|frame| {
        let (base, end) = (frame.addresses.start, frame.addresses.end);
        Region::new(base, end - base).expect("not empty")
    });
    // A kernel reads this from firmware: `gic_firmware::devicetree::parse`, or `acpi`.
    let description = Description {
        cpus: vec![CpuNode::new("/cpus/cpu@0", Affinity::new(0, 0, 0, 0))],
        gic: Some(Gic::v3("/intc", distributor, [redistributors])),
        ..Description::default()
    };
    let (kernel, registers) =
        (Arc::new(Kernel(hardware.clone())), Registers(vcpus.remove(0).into()));
    let irqchip = Irqchip::new(kernel.clone(), kernel, description)?;
    irqchip.cpu_on(Cpu::new(0), &registers, |_| ())?;

    let request = WiredRequest::new(HwIrq::new(33), Trigger::Edge, "uart");
    let uart = irqchip.interrupts().request_wired(request, |context| {
        println!("the UART's handler runs on CPU {}", context.cpu());
    })?;
    hardware.pulse(Line::Spi(33));
    irqchip.handle_irq(Cpu::new(0), &registers, |hwirq, why| panic!("{hwirq}: {why:?}"));
    assert_eq!(uart.count(), 1);
    Ok(())
}
