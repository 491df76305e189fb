//! Run options and progress.

/// The options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Number of messages per vector.
    pub messages: u32,
    /// Seed of all random choices.
    pub seed: u64,
    /// Disturbances during the run.
    pub disturbances: Disturbances,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { messages: 1000, seed: 1, disturbances: Disturbances::default() }
    }
}

/// Disturbances of the machine while devices send messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disturbances {
    /// Moves of vectors between CPUs.
    pub moves: Moves,
    /// CPU hotplug.
    pub cpus: CpuHotplug,
    /// Device hotplug.
    pub devices: DeviceHotplug,
    /// Suspensions of the whole machine.
    pub suspensions: Suspensions,
}

impl Disturbances {
    /// No disturbances.
    pub const NONE: Self = Self {
        moves: Moves::None,
        cpus: CpuHotplug::AlwaysOn,
        devices: DeviceHotplug::Stay,
        suspensions: Suspensions::None,
    };
    /// All disturbances except suspensions.
    pub const AWAKE: Self = Self {
        moves: Moves::Random,
        cpus: CpuHotplug::Replugged,
        devices: DeviceHotplug::Readded,
        suspensions: Suspensions::None,
    };
}

impl Default for Disturbances {
    fn default() -> Self {
        Self { moves: Moves::Random, ..Self::NONE }
    }
}

/// Moves of vectors between CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// Vectors stay on the CPUs where they were allocated.
    None,
    /// Vectors are moved continually, each time to a random CPU.
    Random,
}

/// CPU hotplug during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuHotplug {
    /// All CPUs stay online.
    AlwaysOn,
    /// CPUs occasionally go offline and come back; the boot CPU stays online.
    Replugged,
}

/// Device hotplug during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceHotplug {
    /// Devices stay.
    Stay,
    /// Devices are occasionally removed with all their vectors, and added again.
    Readded,
}

/// Suspensions of the whole machine during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspensions {
    /// The machine never suspends.
    None,
    /// The machine occasionally suspends to RAM and resumes. The interrupt controllers and PCI
    /// functions lose all their registers. Devices sleep until the resume and don't send; messages
    /// that were pending before the suspend must still arrive.
    NowAndThen,
}

/// Progress of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Number of messages sent so far.
    pub sent: u64,
    /// Number of messages to be sent.
    pub total: u64,
}
