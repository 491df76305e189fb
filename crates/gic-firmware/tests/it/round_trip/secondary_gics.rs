//! Generators of secondary GICs for random descriptions.

use super::regions;
use gic_arch::IntId;
use gic_firmware::{
    Fact, Gic, GicVersion, NodeId, ParentInterrupt, Region, SecondaryGic, WiredUser,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Generates secondary GICs, each cascaded to the root GIC, to the previous secondary GIC, or to no
/// controller.
pub(super) fn secondary_gics(root: &Gic) -> impl Strategy<Value = Vec<SecondaryGic>> + use<> {
    let root = root.id.clone();
    let intids = prop_oneof![32..1020u32, 16..32u32, 4096..5120u32, 1056..1120u32];
    vec((regions(), regions(), option::of((any::<bool>(), intids))), 0..3).prop_map(move |rows| {
        let id = |index: usize| NodeId::from(format!("/soc/intc@9{index}"));
        let secondary = |(index, (distributor, interface, stated)): (usize, (_, Region, _))| {
            let parent = |(follows_last, intid): (bool, u32)| ParentInterrupt {
                controller: if follows_last && index > 0 { id(index - 1) } else { root.clone() },
                intid: Some(IntId::new(intid)),
            };
            let gic = Gic {
                compatible: vec!["arm,gic-400".into()],
                version: Fact::stated(GicVersion::V2),
                cpu_interface: Some(Fact::stated(interface)),
                ..Gic::v3(id(index), distributor, [])
            };
            SecondaryGic { gic, parent: Option::map(stated, parent).map(Fact::stated) }
        };
        rows.into_iter().enumerate().map(secondary).collect()
    })
}

/// Adds the secondary GICs whose interrupts the root GIC receives to its wired users.
pub(super) fn users(secondary: &[SecondaryGic], root: &Gic) -> Vec<WiredUser> {
    let user = |one: &SecondaryGic| {
        let parent = one.parent.as_ref().filter(|parent| parent.controller == root.id)?;
        let interrupts = vec![Fact::stated(parent.intid?)];
        Some(WiredUser { id: one.gic.id.clone(), status: one.gic.status.clone(), interrupts })
    };
    secondary.iter().filter_map(user).collect()
}
