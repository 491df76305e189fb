//! Negotiation between an endpoint and the levels of a hierarchy. An endpoint needs capabilities
//! and has properties; each level provides or blocks capabilities, and may require properties.

use core::fmt;

/// Defines a small set over an enum.
macro_rules! set {
    (
        $(#[$doc:meta])* $set:ident of $item:ident {
            $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)*
        }
    ) => {
        /// A single capability or property.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum $item {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $item {
            /// All members, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        impl fmt::Display for $item {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }

        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set(u16);

        impl $set {
            /// The empty set.
            pub const NONE: Self = Self(0);
            /// The set of all members.
            pub const ALL: Self = Self::NONE$(.with($item::$variant))*;

            /// Returns this set with `item` added.
            pub const fn with(self, item: $item) -> Self {
                Self(self.0 | 1 << item as u16)
            }

            /// Returns this set with `item` removed.
            pub const fn without(self, item: $item) -> Self {
                Self(self.0 & !(1 << item as u16))
            }

            /// Returns `true` if the set contains `item`.
            pub const fn contains(self, item: $item) -> bool {
                self.0 & 1 << item as u16 != 0
            }

            /// Iterates over the members of the set.
            pub fn iter(self) -> impl Iterator<Item = $item> {
                $item::ALL.iter().copied().filter(move |item| self.contains(*item))
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self.iter()).finish()
            }
        }
    };
}

set! {
    /// Capabilities that an endpoint may need and a level may provide or block.
    Capabilities of Capability {
        /// Messages in a store with a layout that no bus defines
        /// ([`Storage::Device`](crate::Storage::Device),
        /// [`Storage::Emulated`](crate::Storage::Emulated)).
        DeviceStorage => "messages that the device stores itself",
        /// Delivery of messages exactly as this kernel wrote them, wherever they are stored. Bare
        /// metal always has this capability. In a guest, the hypervisor traps stores to bus-defined
        /// locations and substitutes the physical message, but it can't find messages that are
        /// stored elsewhere ([`Storage::Device`](crate::Storage::Device)), nor those that a driver
        /// copies, unless its virtual IOMMU remaps them. A kernel [states](crate::Surroundings)
        /// which of these applies.
        MessageRemapping => "messages that reach the hardware as this kernel wrote them \
                             (Surroundings::BareMetal or Hypervisor::Remaps)",
        /// Allocation of more vectors while the first ones are already in use.
        LateAllocation => "vectors that are added later",
        /// Aligned groups of more than one vector
        /// ([`Shape::AlignedGroup`](crate::Shape::AlignedGroup)).
        Groups => "aligned groups of vectors",
        /// Masking a vector at any time, on behalf of endpoints that cannot mask.
        Masking => "masking at the controller",
    }
}

set! {
    /// Properties that an endpoint may have. A level can require them or make them unnecessary.
    Properties of Property {
        /// The endpoint stores 64-bit addresses.
        WideAddress => "64 address bits",
        /// The endpoint stores 32-bit data.
        WideData => "32 data bits",
        /// The endpoint can mask its vectors.
        Maskable => "a mask for each vector",
        /// The endpoint cannot trigger other devices' interrupts
        /// ([`InterruptIsolated`](crate::InterruptIsolated)), or its owner checks every message
        /// before storing it.
        Isolation => "interrupt isolation",
    }
}

/// A tier: one level of the hierarchy, as seen by the negotiation. For each capability, the
/// negotiation visits the levels from the endpoint to the root. The first level that provides or
/// blocks the capability decides whether the endpoint may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tier {
    /// Name of the level, for messages (`"its"`, `"iommu"`).
    pub name: &'static str,
    /// Capabilities that the level provides itself, regardless of the levels below.
    pub provides: Capabilities,
    /// Capabilities from lower levels that this level makes unavailable.
    pub blocks: Capabilities,
    /// Properties that the level requires endpoints to have.
    pub requires: Properties,
    /// Properties that lower levels require but this level makes unnecessary.
    pub relieves: Properties,
}

impl Tier {
    /// Creates a level that does not affect the negotiation: all its sets are empty.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            provides: Capabilities::NONE,
            blocks: Capabilities::NONE,
            requires: Properties::NONE,
            relieves: Properties::NONE,
        }
    }

    /// Creates the tier of a controller that provides everything. If all its doorbells lie above
    /// 4 GiB, it needs an endpoint with 64-bit addresses.
    pub fn of_controller(name: &'static str, mut doorbells: impl Iterator<Item = u64>) -> Self {
        let tier = Self::new(name).with_provides(Capabilities::ALL);
        let is_wide = doorbells.all(|address| address > u32::MAX.into());
        let wide = Properties::NONE.with(Property::WideAddress);
        if is_wide { tier.with_requires(wide) } else { tier }
    }

    /// Sets the capabilities that the level provides.
    pub const fn with_provides(self, provides: Capabilities) -> Self {
        Self { provides, ..self }
    }

    /// Sets the capabilities that the level blocks.
    pub const fn with_blocks(self, blocks: Capabilities) -> Self {
        Self { blocks, ..self }
    }

    /// Sets the properties that the level requires.
    pub const fn with_requires(self, requires: Properties) -> Self {
        Self { requires, ..self }
    }

    /// Sets the properties that the level makes unnecessary.
    pub const fn with_relieves(self, relieves: Properties) -> Self {
        Self { relieves, ..self }
    }
}

/// The missing capability or property, and the level that lacks or requires it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Mismatch {
    /// The endpoint needs a capability that `tier` blocks, or that no level provides. In the latter
    /// case, `tier` is the root.
    #[error("the endpoint needs {capability}, which tier {tier} does not offer")]
    Missing {
        /// The missing capability.
        capability: Capability,
        /// The level that blocks or lacks the capability.
        tier: &'static str,
    },
    /// A level requires a property that the endpoint does not have.
    #[error("tier {tier} requires {property}, which the endpoint does not have")]
    Required {
        /// The missing property.
        property: Property,
        /// The level that requires the property.
        tier: &'static str,
    },
    /// The hierarchy has no levels.
    #[error("the hierarchy has no tiers")]
    NoTiers,
}

/// Callback for each tier.
type Visitor<'a> = &'a mut dyn FnMut(&Tier);

/// Checks that a hierarchy provides everything an endpoint needs, and that the endpoint has the
/// properties that the hierarchy requires. `visit_tiers` must visit the levels as
/// [`MsiParent::tiers`](crate::MsiParent::tiers) does.
///
/// # Errors
/// Returns the first missing capability, in the order of [`Capability::ALL`]. If none is missing,
/// returns the first missing property, in the order of [`Property::ALL`].
pub fn negotiate(
    needs: Capabilities,
    has: Properties,
    visit_tiers: &dyn Fn(Visitor<'_>),
) -> Result<(), Mismatch> {
    needs.iter().try_for_each(|capability| provided(capability, visit_tiers))?;
    let lacks = Property::ALL.iter().copied().filter(|property| !has.contains(*property));
    lacks.into_iter().try_for_each(|property| unneeded(property, visit_tiers))
}

fn provided(capability: Capability, visit_tiers: &dyn Fn(Visitor<'_>)) -> Result<(), Mismatch> {
    let mut answer = None;
    let mut last = None;
    visit_tiers(&mut |level| {
        last = Some(level.name);
        if answer.is_none() {
            let provides = level.provides.contains(capability);
            answer = match (provides, level.blocks.contains(capability)) {
                (true, _) => Some(Ok(())),
                (false, true) => Some(Err(Mismatch::Missing { capability, tier: level.name })),
                (false, false) => None,
            };
        }
    });
    let nobody = last.map_or(Mismatch::NoTiers, |tier| Mismatch::Missing { capability, tier });
    answer.unwrap_or(Err(nobody))
}

fn unneeded(property: Property, visit_tiers: &dyn Fn(Visitor<'_>)) -> Result<(), Mismatch> {
    let mut answer = None;
    visit_tiers(&mut |level| {
        if answer.is_none() {
            answer = match (level.requires.contains(property), level.relieves.contains(property)) {
                (true, _) => Some(Err(Mismatch::Required { property, tier: level.name })),
                (false, true) => Some(Ok(())),
                (false, false) => None,
            };
        }
    });
    answer.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: Capabilities = Capabilities::NONE.with(Capability::Groups);
    const WIDE: Properties = Properties::NONE.with(Property::WideAddress);

    fn over(levels: &[Tier], needs: Capabilities, has: Properties) -> Result<(), Mismatch> {
        negotiate(needs, has, &|visit| levels.iter().for_each(visit))
    }

    #[test]
    fn a_mismatch_names_the_blocking_level_instead_of_the_root() {
        let levels = [
            Tier::new("iommu"),
            Tier::new("shim").with_blocks(GROUPS),
            Tier::new("its").with_provides(GROUPS),
        ];
        let missing = Mismatch::Missing { capability: Capability::Groups, tier: "shim" };
        assert_eq!(over(&levels, GROUPS, Properties::ALL), Err(missing));
    }

    #[test]
    fn a_mismatch_names_the_root_if_no_level_provides_the_capability() {
        let levels = [Tier::new("iommu"), Tier::new("vector")];
        let missing = Mismatch::Missing { capability: Capability::Groups, tier: "vector" };
        assert_eq!(over(&levels, GROUPS, Properties::ALL), Err(missing));
    }

    #[test]
    fn a_level_may_provide_a_capability_that_is_blocked_below_it() {
        let levels =
            [Tier::new("remapping").with_provides(GROUPS), Tier::new("vector").with_blocks(GROUPS)];
        assert_eq!(over(&levels, GROUPS, Properties::ALL), Ok(()));
    }

    #[test]
    fn relieved_requirements_do_not_reach_endpoints() {
        let root = Tier::new("direct-lpi").with_requires(WIDE);
        let required = Mismatch::Required { property: Property::WideAddress, tier: "direct-lpi" };
        assert_eq!(
            over(&[Tier::new("shim"), root], GROUPS.without(Capability::Groups), Properties::NONE),
            Err(required)
        );
        let iommu = Tier::new("iommu").with_relieves(WIDE);
        assert_eq!(over(&[iommu, root], Capabilities::NONE, Properties::NONE), Ok(()));
        assert_eq!(over(&[root, iommu], Capabilities::NONE, Properties::NONE), Err(required));
    }

    #[test]
    fn an_endpoint_with_the_required_property_is_accepted() {
        let root = Tier::new("direct-lpi").with_requires(WIDE);
        assert_eq!(over(&[root], Capabilities::NONE, WIDE), Ok(()));
    }

    #[test]
    fn sets_contain_exactly_their_members() {
        for item in Capability::ALL {
            let set = Capabilities::NONE.with(*item);
            assert!(set.iter().eq([*item]));
            assert_eq!(Capabilities::ALL.without(*item).iter().count() + 1, Capability::ALL.len());
        }
    }
}
