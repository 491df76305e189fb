//! A small machine to test with: memory, a kick counter, and a guest's way to registers.

use doorbell_test_support::guest::{Kicks, Ram, ram};
use gic_arch::icc::SysRegEncoding;
use gic_arch::{Reg, RegisterValue, gicd, gicr, icc};
use msi_types::Kick;
use std::sync::Arc;
use vgic::{AccessWidth, Vcpu, Vgic, VgicConfig, VmMemory};

/// The beginning of memory.
pub(crate) const RAM: u64 = 0x4000_0000;

pub(crate) fn memory() -> Arc<VmMemory<Ram>> {
    Arc::new(VmMemory(ram(RAM, 4 << 20)))
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) ram: Arc<VmMemory<Ram>>,
    pub(crate) kicks: Arc<Kicks>,
}

impl Machine {
    pub(crate) fn new(config: VgicConfig) -> Self {
        Self::over(config, memory())
    }

    /// Over memory that is there.
    pub(crate) fn over(config: VgicConfig, ram: Arc<VmMemory<Ram>>) -> Self {
        let kicks = Arc::new(Kicks::new(config.cpus.len()));
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
        Self { gic, vcpus, ram, kicks }
    }

    /// A machine that was [`start`](Self::start)ed.
    pub(crate) fn running(config: VgicConfig) -> Self {
        let mut machine = Self::new(config);
        machine.start();
        machine
    }

    /// With somebody else to kick.
    pub(crate) fn kicking(config: VgicConfig, kick: Arc<dyn Kick>) -> Self {
        let ram = memory();
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kick).unwrap();
        Self { gic, vcpus, ram, kicks: Arc::new(Kicks::new(0)) }
    }

    /// Wakes and unmasks everything, and enables both groups; all interrupts are in Group 1.
    pub(crate) fn start(&mut self) {
        for cpu in 0..self.vcpus.len() {
            self.write_gicr(cpu, gicr::WAKER, gicr::Waker::new());
            self.msr(cpu, icc::PMR.encoding(), 0xff);
            self.msr(cpu, icc::IGRPEN1.encoding(), 1);
            self.write(
                self.frame(cpu) + u64::from(gicr::IGROUPR.offset()),
                AccessWidth::Word,
                0xffff_ffff,
            );
        }
        for register in gicd::IGROUPR.registers().iter() {
            self.write_gicd(register, 0xffff_ffff);
        }
        for register in gicd::IGROUPR_E.registers().iter() {
            self.write_gicd(register, 0xffff_ffff);
        }
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(3));
    }

    pub(crate) fn frame(&self, cpu: usize) -> u64 {
        let regions = &self.gic.config().redistributors;
        let mut frames = regions.iter().flat_map(|region| {
            (0..u64::from(region.count)).map(|index| region.base + index * region.stride)
        });
        frames.nth(cpu).unwrap()
    }

    pub(crate) fn write(&self, address: u64, width: AccessWidth, value: u64) {
        self.gic.write(address, width, value).unwrap();
    }

    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> u64 {
        self.gic.read(address, width).unwrap()
    }

    pub(crate) fn write_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>, value: V) {
        self.write_at(self.gic.config().distributor, register, value);
    }

    pub(crate) fn write_gicr<V: RegisterValue, A>(
        &self,
        cpu: usize,
        register: Reg<V, A>,
        value: V,
    ) {
        self.write_at(self.frame(cpu), register, value);
    }

    fn write_at<V: RegisterValue, A>(&self, base: u64, register: Reg<V, A>, value: V) {
        let raw: V::Raw = value.into();
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.write(base + u64::from(register.offset()), width, raw.into());
    }

    pub(crate) fn read_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>) -> u64 {
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.read(self.gic.config().distributor + u64::from(register.offset()), width)
    }

    pub(crate) fn read_gicr<V: RegisterValue, A>(&self, cpu: usize, register: Reg<V, A>) -> u64 {
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.read(self.frame(cpu) + u64::from(register.offset()), width)
    }

    /// Enables SPI `intid`.
    pub(crate) fn enable_spi(&self, intid: u32) {
        let bit = gicd::ISENABLER.locate(gic_arch::IntId::new(intid)).unwrap();
        self.write_gicd(bit.register(), bit.mask());
    }

    /// Makes SPI `intid` edge-triggered.
    pub(crate) fn make_edge(&self, intid: u32) {
        let bits = gicd::ICFGR.locate(gic_arch::IntId::new(intid)).unwrap();
        let old = u32::try_from(self.read_gicd(bits.register())).unwrap();
        self.write_gicd(bits.register(), bits.insert(old, 2));
    }

    pub(crate) fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }

    pub(crate) fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> u64 {
        self.vcpus[cpu].read_sysreg(register).unwrap()
    }

    /// Reads `ICC_IAR1_EL1`.
    pub(crate) fn acknowledge(&mut self, cpu: usize) -> u64 {
        self.mrs(cpu, icc::IAR1.encoding())
    }

    /// Writes `ICC_EOIR1_EL1`.
    pub(crate) fn end(&mut self, cpu: usize, intid: u64) {
        self.msr(cpu, icc::EOIR1.encoding(), intid);
    }
}
