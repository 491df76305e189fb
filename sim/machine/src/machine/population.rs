//! The parameters of a machine's devices. Firmware states their places and their controllers.

use doorbell_hardware::pci::StoreConfig;
use doorbell_hardware::platform_device::PlatformDeviceConfig;

/// The choice of a machine's devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Population {
    /// For each statement of a host bridge's routing there are a few functions, with every kind of
    /// message store in turn. Firmware's platform devices are what their names say.
    #[default]
    Usual,
    /// Chosen devices.
    Chosen(ChosenDevices),
}

/// Chosen devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChosenDevices {
    /// PCI functions, dealt out to the host bridges in turn. Those that find no place are left out,
    /// with a note.
    pub functions: Vec<ChosenFunction>,
    /// The parameters of firmware's platform devices, in their order, repeated as often as needed.
    /// The usual ones if there is none.
    pub devices: Vec<PlatformDeviceConfig>,
}

/// A PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChosenFunction {
    /// Its place.
    pub place: FunctionPlacement,
    /// Its message store.
    pub store: StoreConfig,
}

/// The place of a PCI function: the next requester ID of that kind which firmware leads to a
/// controller that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionPlacement {
    /// A device of its own on the root bus.
    Root,
    /// A further function of the device that was placed last.
    BesideLast,
    /// Behind a root port of its own.
    Branch,
    /// Behind the host's bridge to conventional PCI, with one requester ID for all there.
    Conventional,
}

/// A device of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// The [`DeviceReport::id`](crate::DeviceReport::id) it will have.
    pub id: String,
    /// Its parameters.
    pub config: DeviceConfig,
}

/// The parameters of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceConfig {
    /// A PCI function.
    Function(StoreConfig),
    /// A platform device.
    Platform(PlatformDeviceConfig),
}
