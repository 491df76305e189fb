//! The options of a run, and its progress.

/// The options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Messages per vector.
    pub messages: u32,
    /// Decides every random choice.
    pub seed: u64,
    /// The disturbances meanwhile.
    pub disturbances: Disturbances,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { messages: 1000, seed: 1, disturbances: Disturbances::default() }
    }
}

/// The disturbances while the devices send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disturbances {
    /// Moves of vectors between CPUs.
    pub moves: Moves,
    /// CPU hotplug.
    pub cpus: CpuHotplug,
    /// Removal and return of devices.
    pub devices: DeviceHotplug,
    /// Suspensions of the whole machine.
    pub suspensions: Suspensions,
}

impl Default for Disturbances {
    fn default() -> Self {
        Self {
            moves: Moves::Random,
            cpus: CpuHotplug::AlwaysOn,
            devices: DeviceHotplug::Stay,
            suspensions: Suspensions::None,
        }
    }
}

/// Moves of vectors between CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// They stay where they were placed.
    None,
    /// All the time, to a random CPU.
    Random,
}

/// CPU hotplug during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuHotplug {
    /// All CPUs stay on line.
    AlwaysOn,
    /// Now and then one goes off line and comes back; the boot CPU stays.
    Replugged,
}

/// Removal and return of devices during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceHotplug {
    /// They stay.
    Stay,
    /// Now and then one is removed with all its vectors, and added again.
    Readded,
}

/// Suspensions of the whole machine during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspensions {
    /// The machine never suspends.
    None,
    /// The machine occasionally suspends to RAM and resumes, and loses all registers of interrupt
    /// controllers and PCI functions. Devices sleep in the meantime: they send messages only after
    /// the resume, and messages that were pending before the suspend must arrive.
    NowAndThen,
}

/// The progress of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Messages sent so far.
    pub sent: u64,
    /// Messages to be sent.
    pub total: u64,
}
