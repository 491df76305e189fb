//! Functions that hardware does not isolate from each other, and that must therefore be assigned to
//! the same guest.
//!
//! The rules are those of Linux's IOMMU groups (`pci_device_group` in drivers/iommu/iommu.c and
//! `pci_acs_enabled` in drivers/pci/pci.c), which VFIO requires to be assigned as a whole.

use super::capabilities::{
    HEADER_TYPE, MULTI_FUNCTION, PORT_DOWNSTREAM, PORT_EVENT_COLLECTOR, PORT_FROM_CONVENTIONAL,
    PORT_ROOT, PORT_TO_CONVENTIONAL, extended_capability, port_type,
};
use super::{ConfigSpace, PciError};
use alloc::vec::Vec;
use msi_types::RequesterId;
use msi_types::pci::PciRequester;

/// Access Control Services (PCI Express Base §7.7.11): the extended capability's ID, and the
/// offsets of its registers.
const ACS: u16 = 0x0d;
const ACS_CAPABILITY: u16 = 4;
const ACS_CONTROL: u16 = 6;
/// Source validation, request redirect, completion redirect and upstream forwarding: with all of
/// them, a request reaches no other function before the IOMMU has translated it.
const ACS_ISOLATES: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;
/// Number of buses, and thus the maximum number of bridges above a function.
const BUSES: u16 = 256;

/// Means that isolate a function from the other functions of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// The function's address, and the requester ID that it shares with other functions, if any.
    pub requester: PciRequester,
    /// Address of the bridge to the function's bus, or `None` on a root bus.
    pub bridge: Option<RequesterId>,
    /// `true` if the function's device may have several functions. `false` for a virtual function
    /// (SR-IOV), whatever its function number is.
    pub multifunction: bool,
    /// `true` if the function does not pass on requests to other functions of its device, nor, if
    /// it is a bridge, between the functions below it.
    pub redirects: bool,
}

impl Isolation {
    /// Reads a function's isolation from configuration space. `bridge` is the address of the bridge
    /// to its bus. Call [`enable_acs`] first.
    ///
    /// Context: task; may sleep.
    pub fn read(
        config: &dyn ConfigSpace,
        requester: PciRequester,
        bridge: Option<RequesterId>,
    ) -> Self {
        let multifunction = requester.function.pci_function() != 0
            || config.read8(HEADER_TYPE) & MULTI_FUNCTION != 0;
        let redirects = match port_type(config) {
            None | Some(PORT_TO_CONVENTIONAL | PORT_FROM_CONVENTIONAL | PORT_EVENT_COLLECTOR) => {
                false
            }
            Some(PORT_ROOT | PORT_DOWNSTREAM) => acs_isolates(config),
            // A device with one function has no other function to pass requests to (PCI Express
            // Base §6.12.1.3).
            Some(_) => !multifunction || acs_isolates(config),
        };
        Self { requester, bridge, multifunction, redirects }
    }

    /// Returns `true` if hardware does not isolate two functions. `open_bridge` is the bridge to
    /// this function's bus if requests from that bus may reach other functions.
    fn reaches(&self, other: &Self, open_bridge: Option<RequesterId>) -> bool {
        let [here, there] = [self, other].map(|it| it.requester.function);
        let is_open = |it: &Self| it.multifunction && !it.redirects;
        self.requester.at_host() == other.requester.at_host()
            || open_bridge.is_some_and(|at| other.bridge == Some(at) || there == at)
            || is_open(self) && is_open(other) && here.get() >> 3 == there.get() >> 3
    }
}

/// Makes a function redirect requests to the host bridge instead of passing them on to other
/// functions, as far as it can (Access Control Services). Call this for each function, bridges
/// included, before [`Isolation::read`].
///
/// Context: task; may sleep.
pub fn enable_acs(config: &dyn ConfigSpace) {
    let express = port_type(config);
    if let Some(acs) = express.and_then(|_| extended_capability(config, ACS)) {
        let capable = config.read16(acs + ACS_CAPABILITY);
        config.write16(acs + ACS_CONTROL, capable & ACS_ISOLATES);
    }
}

/// Returns `true` if Access Control Services isolate a function. A service that the function cannot
/// control is assumed to be always on (`pci_acs_flags_enabled`).
fn acs_isolates(config: &dyn ConfigSpace) -> bool {
    extended_capability(config, ACS).is_some_and(|acs| {
        let required = config.read16(acs + ACS_CAPABILITY) & ACS_ISOLATES;
        config.read16(acs + ACS_CONTROL) & required == required
    })
}

/// Divides the functions of a segment into groups that hardware isolates from each other. Returns
/// the number of each function's group: the index of its first member.
///
/// Functions of different groups may be assigned to different guests, if an IOMMU confines each
/// requester ID. A hypervisor must keep the bridges, because a guest that owns a bridge can disable
/// the functions below it. `functions` must include the bridges; functions below a missing bridge
/// are in one group. The time is quadratic in the number of functions.
///
/// Two functions are in the same group if
/// - they share a requester ID at the host bridge, or
/// - they are on the same bus, or one is the bridge to the other's bus, and not every bridge from
///   that bus to the root redirects requests, or
/// - they belong to the same device, and neither redirects requests.
///
/// Linux also separates the functions of devices that it knows to isolate without Access Control
/// Services (`pci_dev_acs_enabled` in drivers/pci/quirks.c), such as Intel's integrated ones. They
/// are in one group here.
///
/// Like Linux, we do not join downstream ports of a switch that lack Access Control Services,
/// although such a port may pass requests to its neighbors. If guests must not trust each other's
/// devices, treat the functions below such a switch as one group.
///
/// ```
/// use irq_domain::pci::{Isolation, isolation_groups};
/// use msi_types::RequesterId;
/// use msi_types::pci::PciRequester;
///
/// # fn main() -> Result<(), irq_domain::pci::PciError> {
/// let function = |address: RequesterId, bridge| Isolation {
///     requester: PciRequester::new(address),
///     bridge,
///     multifunction: false,
///     redirects: true,
/// };
/// let port = RequesterId::pci(0, 1, 0);
/// let open_port = RequesterId::pci(0, 2, 0);
/// let functions = [
///     function(port, None),
///     function(RequesterId::pci(1, 0, 0), Some(port)),
///     // A root port without Access Control Services.
///     Isolation { redirects: false, ..function(open_port, None) },
///     function(RequesterId::pci(2, 0, 0), Some(open_port)),
/// ];
/// let groups = isolation_groups(&functions)?;
/// assert_ne!(groups[0], groups[1], "the device below the first port has a group of its own");
/// assert_ne!(groups[1], groups[3]);
/// assert_eq!(groups[2], groups[3], "the second port and its device are not isolated");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`PciError::NoMemory`] if the kernel's heap is exhausted.
pub fn isolation_groups(functions: &[Isolation]) -> Result<Vec<usize>, PciError> {
    let mut groups: Vec<usize> = Vec::new();
    groups.try_reserve_exact(functions.len())?;
    groups.extend(0..functions.len());
    for (index, function) in functions.iter().enumerate() {
        let open_bridge = function.bridge.filter(|bridge| !reaches_host(functions, *bridge));
        for (other_index, other) in functions.iter().enumerate() {
            if function.reaches(other, open_bridge)
                && let (Some(&first), Some(&second)) = (groups.get(index), groups.get(other_index))
                && first != second
            {
                let joined = groups.iter_mut().filter(|group| **group == first.max(second));
                joined.for_each(|group| *group = first.min(second));
            }
        }
    }
    Ok(groups)
}

/// Returns `true` if requests from below a bridge reach the host before they can reach another
/// function.
fn reaches_host(functions: &[Isolation], bridge: RequesterId) -> bool {
    let mut next = Some(bridge);
    // A path of more bridges than there are buses is circular.
    for _ in 0..BUSES {
        let Some(address) = next else { return true };
        let bridge = functions.iter().find(|it| it.requester.function == address);
        let Some(bridge) = bridge.filter(|bridge| bridge.redirects) else { return false };
        next = bridge.bridge;
    }
    false
}
