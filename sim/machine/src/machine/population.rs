//! The parameters of a machine's devices. Firmware determines their locations and controllers.

use doorbell_hardware::pci::StoreConfig;
use doorbell_hardware::platform_device::PlatformDeviceConfig;

/// The selection of a machine's devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Population {
    /// A few functions for each statement of a host bridge's routing, with every kind of message
    /// store in turn. Firmware's platform devices behave as their compatible strings say.
    #[default]
    Usual,
    /// Chosen devices.
    Chosen(ChosenDevices),
}

/// Chosen devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChosenDevices {
    /// PCI functions, distributed over the host bridges in turn. Functions without a suitable
    /// location are omitted, with a note.
    pub functions: Vec<ChosenFunction>,
    /// Parameters of firmware's platform devices, in their order, repeated as often as needed. If
    /// empty, the devices have the usual parameters.
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

/// The location of a PCI function: the next requester ID of that kind which firmware routes to a
/// controller that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionPlacement {
    /// A separate device on the root bus.
    Root,
    /// Another function of the device that was placed last.
    BesideLast,
    /// Behind a separate root port.
    Branch,
    /// Behind the host's bridge to conventional PCI, where all functions share one requester ID.
    Conventional,
}

/// A device of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// The value that [`DeviceReport::id`](crate::DeviceReport::id) will have.
    pub id: String,
    /// Parameters.
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
