//! Test rig: an ITS with redistributors, driven through its registers. Memory accesses out of range
//! fail.

use crate::AccessWidth::{Double, Word};
use crate::VmMemory;
use crate::frames::its::{Its, ItsConfig, Targets};
use crate::lpi::{Control, LpiConfig, LpiCore, LpiFaults, PendingLpis};
use crate::monitor::GuestMemory;
use crate::monitor::events::{EventLog, RegisterFrame};
use crate::wakeup::VcpuWakeup;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_test_support::guest::{self, Kicks};
pub(super) use doorbell_test_support::guest::{
    clear, discard, int, inv, invall, mapc, mapti, movall, movi, sync, unmapc, unmapd,
};
use gic_arch::gits::{self, Baser, Cbaser, Creadr, Ctlr, Cwriter, PageSize};
use gic_arch::its::{CollectionId, Command, RawCommand, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{Lpi, Priority, gicr};
use msi_types::{Cpu, DeviceId};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub(super) const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 8 << 20;
pub(super) const QUEUE: u64 = RAM;
pub(super) const DEVICES: u64 = RAM + 0x10_0000;
pub(super) const COLLECTIONS: u64 = RAM + 0x20_0000;
pub(super) const CONFIG: u64 = RAM + 0x30_0000;
pub(super) const PENDING: u64 = RAM + 0x40_0000;
pub(super) const BASE: u64 = 0x0808_0000;
const QUEUE_PAGES: u8 = 16;
/// An empty list of LPIs.
pub(super) const NO_LPIS: [u32; 0] = [];

type Ram = Arc<GuestMemoryMmap>;

pub(super) struct Rig {
    pub(super) ram: Arc<VmMemory<Ram>>,
    pub(super) kicks: Arc<Kicks>,
    pub(super) wakeup: Arc<VcpuWakeup>,
    pub(super) events: Arc<EventLog>,
    pub(super) lpis: Arc<LpiCore>,
    pub(super) its: Its,
}

impl Rig {
    /// Creates a rig with all tables allocated, LPIs and the ITS enabled, all LPIs configured as
    /// enabled with priority 0xa0, and collection n mapped to vCPU n.
    pub(super) fn running(vcpus: u16) -> Self {
        Self::running_with(vcpus, ItsConfig::new(BASE))
    }

    pub(super) fn running_with(vcpus: u16, config: ItsConfig) -> Self {
        let rig = Self::new(vcpus, config);
        rig.start(vcpus);
        rig
    }

    fn start(&self, vcpus: u16) {
        for lpi in 0..0x1000 {
            self.configure(8192 + lpi, true, 0xa0);
        }
        for vcpu in 0..vcpus {
            self.enable_lpis(vcpu);
        }
        self.provide_tables();
        self.set_enabled(true);
        for vcpu in 0..vcpus {
            self.run([mapc(vcpu, vcpu)]);
        }
    }

    /// Creates a rig in its reset state.
    pub(super) fn new(vcpus: u16, config: ItsConfig) -> Self {
        Self::sized(LpiConfig::new(vcpus), config)
    }

    /// Creates a rig with both direct LPIs and an ITS. Real machines can't have both, but this rig
    /// serves both kinds of tests.
    pub(super) fn sized(size: LpiConfig, config: ItsConfig) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_BYTES)]).unwrap();
        let ram = Arc::new(VmMemory(Arc::new(ram)));
        let size = LpiConfig { direct: true, ..size };
        let vcpus = size.vcpus;
        let kicks = Arc::new(Kicks::new(vcpus.into()));
        let wakeup = Arc::new(VcpuWakeup::new(usize::from(vcpus), kicks.clone()).unwrap());
        let events = Arc::new(EventLog::new(crate::FaultReason::COUNT).unwrap());
        let redistributors = (0..vcpus).map(|vcpu| redistributor(vcpu).base()).collect();
        let faults = LpiFaults::new(events.clone(), redistributors);
        let lpis = LpiCore::new(size, ram.clone(), wakeup.clone(), faults).unwrap();
        let targets = Targets::ProcessorNumbers((0..vcpus).collect());
        let its = Its::new(config, targets, lpis.clone(), events.clone()).expect("a valid config");
        Self { ram, kicks, wakeup, events, lpis, its }
    }

    pub(super) fn provide_tables(&self) {
        let table =
            |at| Baser::new().with_page_size(PageSize::Size64K).with_address(at).with_valid(true);
        self.its.write(gits::BASER.offset_of(0), Double, table(DEVICES).into_bits());
        self.its.write(gits::BASER.offset_of(1), Double, table(COLLECTIONS).into_bits());
        let queue = Cbaser::new()
            .with_pages_minus_one(QUEUE_PAGES - 1)
            .with_address(QUEUE)
            .with_valid(true);
        self.its.write(gits::CBASER.offset(), Double, queue.into_bits());
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        let ctlr = Ctlr::new().with_enabled(enabled);
        self.its.write(gits::CTLR.offset(), Word, ctlr.into_bits().into());
    }

    pub(super) fn pendbaser(vcpu: u16) -> gicr::Pendbaser {
        gicr::Pendbaser::new().with_address(PENDING + u64::from(vcpu) * 0x1_0000)
    }

    pub(super) fn propbaser() -> gicr::Propbaser {
        gicr::Propbaser::new().with_id_bits_minus_one(15).with_address(CONFIG)
    }

    pub(super) fn enable_lpis(&self, vcpu: u16) {
        self.enable_lpis_with(vcpu, Self::propbaser(), Self::pendbaser(vcpu));
    }

    pub(super) fn enable_lpis_with(
        &self,
        vcpu: u16,
        propbaser: gicr::Propbaser,
        pendbaser: gicr::Pendbaser,
    ) {
        let enable = |control: &mut Control| control.enable_lpis(vcpu.into(), propbaser, pendbaser);
        self.lpis.with_kicks_deferred(enable).unwrap();
        self.finish_sweeps();
    }

    /// Finishes the work requested by register writes.
    pub(super) fn finish_sweeps(&self) {
        self.lpis.with_kicks_deferred(Control::finish_sweeps).unwrap();
        self.lpis.send_kicks();
    }

    pub(super) fn disable_lpis(&self, vcpu: u16) {
        self.lpis.with_kicks_deferred(|control| control.disable_lpis(vcpu.into()));
        self.finish_sweeps();
    }

    /// Writes an LPI's configuration byte. The byte takes effect at the next INV.
    pub(super) fn configure(&self, lpi: u32, enable: bool, priority: u8) {
        let config = Config::new().with_enable(enable).with_priority(Priority::new(priority));
        self.ram.write(CONFIG + u64::from(lpi - 8192), &[config.into_bits()]).expect("in memory");
    }

    pub(super) fn creadr(&self) -> Creadr {
        Creadr::from_bits(self.its.read(gits::CREADR.offset(), Double))
    }

    pub(super) fn cwriter(&self) -> Cwriter {
        Cwriter::from_bits(self.its.read(gits::CWRITER.offset(), Double))
    }

    /// Writes raw commands to the queue, and updates `GITS_CWRITER`.
    pub(super) fn queue_raw(&self, commands: impl IntoIterator<Item = RawCommand>) {
        let bytes = u32::from(QUEUE_PAGES) * 0x1000;
        let start = self.cwriter().offset();
        let mut offset = start;
        for command in commands {
            let image: Vec<u8> = command.into_iter().flat_map(u64::to_le_bytes).collect();
            self.ram.write(QUEUE + u64::from(offset), &image).expect("the queue must be in memory");
            offset = (offset + 32) % bytes;
            assert_ne!(offset, start, "the queue can hold one command less than it has slots");
        }
        self.its.write(gits::CWRITER.offset(), Double, Cwriter::at_offset(offset).into_bits());
    }

    /// Executes commands, and waits for all of them.
    pub(super) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        self.queue_raw(commands.into_iter().map(Command::encode));
        for _ in 0..10_000 {
            let creadr = self.creadr();
            if creadr.stalled() || creadr.offset() == self.cwriter().offset() {
                break;
            }
        }
        assert_eq!(self.creadr().offset(), self.cwriter().offset(), "the queue must become empty");
    }

    pub(super) fn send(&self, device: u32, event: u32) -> msi_types::Delivery {
        self.its.translate(DeviceId::new(device), event)
    }

    pub(super) fn vcpu(&self, vcpu: u16) -> PendingLpis {
        self.lpis.pending_lpis(cpu(vcpu)).unwrap().expect("the vCPU must not be in use")
    }

    pub(super) fn pending(&self, vcpu: u16) -> Vec<u32> {
        self.lpis.pending(cpu(vcpu)).into_iter().map(Lpi::get).collect()
    }

    pub(super) fn kicks(&self, vcpu: u16) -> usize {
        self.kicks.of(vcpu.into())
    }
}

/// Acknowledges all LPIs, highest priority first.
pub(super) fn drain(queue: &mut PendingLpis) -> Vec<u32> {
    core::iter::from_fn(|| take(queue)).collect()
}

pub(super) fn take(queue: &mut PendingLpis) -> Option<u32> {
    queue.take(Priority::IDLE).map(|ready| ready.lpi.get())
}

pub(super) fn cpu(vcpu: u16) -> Cpu {
    Cpu::new(vcpu.into())
}

pub(super) fn target(vcpu: u16) -> RdBase {
    RdBase::from_processor_number(vcpu)
}

pub(super) fn icid(number: u16) -> CollectionId {
    CollectionId::new(number)
}

pub(super) fn mapd(device: u32, bits: u8) -> Command {
    guest::mapd(device, bits, RAM)
}

/// Returns the frame of a vCPU's redistributor.
pub(super) fn redistributor(vcpu: u16) -> RegisterFrame {
    RegisterFrame::Redistributor(0x80a_0000 + u64::from(vcpu) * 0x2_0000)
}

/// Offset of an element in a register array.
pub(super) trait OffsetOf {
    fn offset_of(self, index: u32) -> u32;
}

impl OffsetOf for gic_arch::RegArray<Baser> {
    fn offset_of(self, index: u32) -> u32 {
        self.get(index).expect("the register must be implemented").offset()
    }
}
