//! A test machine with an ITS whose guest has completed its setup, and functions that save and
//! restore the machine.

pub(crate) use doorbell_test_support::guest::ITS;
use doorbell_test_support::guest::{Machine, RAM, Ram, mapc};
use gic_arch::lpi::Config;
use gic_arch::{Priority, gicd, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, VgicConfig, VmMemory};

pub(crate) const CPUS: u16 = 3;
const CONFIG: u64 = RAM + 0x4_0000;
const PENDING: u64 = RAM + 0x8_0000;

pub(crate) struct Board(Machine);

impl Deref for Board {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl DerefMut for Board {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.0
    }
}

/// Returns the configuration of a machine with every feature of the model, and three vCPUs with
/// sparse affinities.
pub(crate) fn config() -> VgicConfig {
    let mut config = VgicConfig::new(CPUS)
        .with_spis(64)
        .with_extended_spis(32)
        .with_extended_ppis(32)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(ITS)])
        .with_one_of_n(true)
        .with_message_based_spis(true)
        .with_redistributor_invalidation(true);
    for (cpu, aff1) in config.cpus.iter_mut().zip([0, 7, 3]) {
        cpu.affinity = gic_arch::Affinity::new(0, 0, aff1, 1);
    }
    config
}

impl Board {
    /// Creates a machine in its reset state.
    pub(crate) fn new(config: VgicConfig) -> Self {
        Self(Machine::new(config))
    }

    /// Creates a machine in its reset state, with existing guest memory.
    pub(crate) fn over(config: VgicConfig, ram: Arc<VmMemory<Ram>>) -> Self {
        Self(Machine::over(config, ram))
    }

    /// Creates a machine with the interrupts, groups, LPIs and ITS enabled, as by a kernel at boot.
    /// LPIs have priority 0xa0, and collection n is mapped to vCPU n.
    pub(crate) fn running() -> Self {
        let mut board = Self::new(config());
        board.start();
        board
    }

    pub(crate) fn start(&mut self) {
        self.start_cpus();
        self.start_its();
        self.run((0..CPUS).map(|cpu| mapc(cpu, cpu)));
    }

    /// Performs the setup of [`start`](Self::start) except for the ITS.
    pub(crate) fn start_cpus(&mut self) {
        self.0.start();
        for cpu in 0..self.vcpus.len() {
            self.provide_lpi_tables(cpu);
            self.set_enable_lpis(cpu, true);
        }
    }

    /// Sets up the LPI tables of a redistributor, which must be done before the guest sets
    /// `EnableLPIs`.
    pub(crate) fn provide_lpi_tables(&self, cpu: usize) {
        for lpi in 8192..8192 + 256 {
            self.configure(lpi, true, 0xa0);
        }
        let pending = PENDING + 0x1_0000 * u64::try_from(cpu).unwrap();
        self.0.provide_lpi_tables(cpu, 16, CONFIG, pending);
    }

    /// Serializes the machine's state and returns a new machine that was restored from it.
    pub(crate) fn moved(mut self) -> Self {
        let sent = serde_json::to_string(&self.save()).unwrap();
        let mut other = Self(self.successor());
        other.restore(&serde_json::from_str(&sent).unwrap());
        other
    }

    /// Returns the state of a machine with the same configuration that was never used.
    pub(crate) fn unused(&self) -> SavedState {
        Self::new(self.gic.config().clone()).save()
    }

    pub(crate) fn copy_memory_to(&self, other: &Self) {
        let mut bytes = vec![0; 2 << 20];
        self.ram.read(RAM, &mut bytes).unwrap();
        other.ram.write(RAM, &bytes).unwrap();
    }

    /// Writes an LPI's configuration byte.
    pub(crate) fn configure(&self, lpi: u32, enable: bool, priority: u8) {
        let config = Config::new().with_enable(enable).with_priority(Priority::new(priority));
        self.ram.write(CONFIG + u64::from(lpi - 8192), &[config.into_bits()]).unwrap();
    }

    /// Handles every signaled interrupt, and lowers the line if the interrupt is level-sensitive.
    pub(crate) fn handle_all(&mut self, cpu: usize) -> Vec<u64> {
        let mut handled = Vec::new();
        for _ in 0..100 {
            let intid = self.acknowledge(cpu);
            if intid == 1023 {
                return handled;
            }
            self.lower(cpu, intid.try_into().unwrap());
            self.end(cpu, intid);
            self.msr(cpu, icc::DIR.encoding(), intid);
            handled.push(intid);
        }
        panic!("interrupts do not end: {handled:?}");
    }

    fn lower(&self, cpu: usize, intid: u32) {
        let cpu = Cpu::new(u32::try_from(cpu).unwrap());
        self.gic.set_line(Line::Ppi { cpu, intid }, Level::Low);
        self.gic.set_line(Line::Spi(intid), Level::Low);
        if self.gic.config().message_based_spis {
            self.write_gicd(gicd::CLRSPI_NSR, intid);
        }
    }
}
