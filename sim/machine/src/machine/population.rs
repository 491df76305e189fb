//! The parameters of a machine's devices. (Their locations and controllers are up to firmware.)

use doorbell_hardware::pci::StoreConfig;
use doorbell_hardware::platform_device::PlatformDeviceConfig;

/// The choice of devices in a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Population {
    /// A few functions per routing entry of each host bridge, cycling through the kinds of message
    /// store. Platform devices behave as their compatible strings say.
    #[default]
    Usual,
    /// Explicitly chosen devices.
    Chosen(ChosenDevices),
}

/// Explicitly chosen devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChosenDevices {
    /// PCI functions, distributed round-robin over the host bridges. A function without a suitable
    /// location is omitted, with a note.
    pub functions: Vec<ChosenFunction>,
    /// Parameters for firmware's platform devices, in order and repeated as often as needed. If
    /// empty, the devices use the defaults.
    pub devices: Vec<PlatformDeviceConfig>,
}

/// A PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChosenFunction {
    /// Location.
    pub place: FunctionPlacement,
    /// Message store.
    pub store: StoreConfig,
}

/// The location of a PCI function, which takes the next requester ID of that kind that firmware
/// routes to a participating controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionPlacement {
    /// A new device on the root bus.
    Root,
    /// Another function of the most recently placed device.
    BesideLast,
    /// Behind its own root port.
    Branch,
    /// Behind the host's conventional-PCI bridge. All functions there share one requester ID.
    Conventional,
}

/// A device in a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// The value that [`DeviceReport::id`](crate::DeviceReport::id) will have.
    pub id: String,
    /// Parameters.
    pub config: DeviceConfig,
}

/// A device's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceConfig {
    /// A PCI function.
    Function(StoreConfig),
    /// A platform device.
    Platform(PlatformDeviceConfig),
}
