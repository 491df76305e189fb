//! Bare metal, or a guest: whether what a device stores is what arrives.

/// On what the kernel runs: a fact of the platform, found out at boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum World {
    /// On the machine itself.
    #[default]
    BareMetal,
    /// In a virtual machine.
    Guest(StoredMessages),
}

/// What becomes of the messages that a guest stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoredMessages {
    /// The hypervisor traps the stores that a bus defines, and puts in what is real. What a device keeps elsewhere
    /// would be sent as the guest made it, which means nothing to the hardware. So it is without a virtual IOMMU
    /// that remaps interrupts; a virtual ITS alone changes nothing about it.
    Trapped,
    /// A virtual IOMMU's remapping makes the guest's messages real, wherever they are stored.
    Remapped,
}
