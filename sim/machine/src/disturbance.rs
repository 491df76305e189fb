//! Disturbances of a machine while its devices send messages.

/// A kind of disturbance, which occurs repeatedly during a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Disturbance {
    /// A vector is moved to a random CPU. Otherwise, vectors stay on the CPUs where they were
    /// allocated.
    Moves,
    /// A CPU goes offline and comes back; the boot CPU stays online.
    CpuHotplug,
    /// A device is removed with all its vectors, and added again.
    DeviceHotplug,
    /// The machine suspends to RAM and resumes. The interrupt controllers and PCI functions lose
    /// all their registers. Devices sleep until the resume and don't send; messages that were
    /// pending before the suspend must still arrive.
    Suspensions,
}

impl Disturbance {
    /// All disturbances except suspensions.
    pub const AWAKE: [Self; 3] = [Self::Moves, Self::CpuHotplug, Self::DeviceHotplug];
    /// All disturbances.
    pub const ALL: [Self; 4] =
        [Self::Moves, Self::CpuHotplug, Self::Suspensions, Self::DeviceHotplug];
}

/// Number of disturbances of each kind, and of migrations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DisturbanceCounts {
    pub(crate) moves: u64,
    pub(crate) readded: u64,
    pub(crate) replugged: u64,
    pub(crate) suspended: u64,
    pub(crate) migrated: u64,
}

impl DisturbanceCounts {
    /// Counts a disturbance of this kind if it took place.
    pub(crate) fn count(&mut self, kind: Disturbance, done: bool) {
        let counter = match kind {
            Disturbance::Moves => &mut self.moves,
            Disturbance::CpuHotplug => &mut self.replugged,
            Disturbance::DeviceHotplug => &mut self.readded,
            Disturbance::Suspensions => &mut self.suspended,
        };
        *counter += u64::from(done);
    }
}
