//! The parameters of a machine's devices; firmware determines their locations and controllers.

use doorbell_hardware::pci::StoreConfig;
use doorbell_hardware::platform_device::PlatformDeviceConfig;

/// The choice of devices for a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Population {
    /// A few functions per routing entry of each host bridge, cycling through the kinds of message
    /// store. Platform devices behave as their compatible strings prescribe.
    #[default]
    Usual,
    /// Explicitly chosen devices.
    Chosen(ChosenDevices),
}

/// Explicitly chosen devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChosenDevices {
    /// PCI functions, distributed round-robin over the host bridges. If no location is suitable for
    /// a function, the function is omitted and a note says so.
    pub functions: Vec<ChosenFunction>,
    /// Parameters for the platform devices that firmware describes, in order and repeated as
    /// needed. If the list is empty, the devices use the defaults.
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

/// The kind of location of a PCI function. The function receives the next requester ID of this kind
/// that firmware routes to a participating controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionPlacement {
    /// A new device on the root bus.
    Root,
    /// Another function of the most recently placed device.
    BesideLast,
    /// Behind a separate root port.
    Branch,
    /// Behind the host's conventional-PCI bridge. All functions behind that bridge share one
    /// requester ID.
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
