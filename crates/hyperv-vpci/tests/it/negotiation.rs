//! Version negotiation, until the bus is on.

use crate::board::{OTHER, SLOT, open, spis};
use crate::tamper::{Fate, Tamper};
use hyperv_vpci::guest::VpciError;
use hyperv_vpci::host::Injection;
use hyperv_vpci::protocol::reply::Status;
use hyperv_vpci::protocol::{Request, ResourcesForm, Version};

fn opened(highest: Version, fate: Fate) -> (Vec<Request>, Result<Version, VpciError>) {
    let (gic, vectors) = spis();
    let tamper = Tamper::default();
    tamper.set(fate);
    let (_, _, bus) = open(highest, Injection::Spi(gic), vectors, &tamper);
    let heard = tamper.heard().into_iter();
    let requests = heard.map(|(_, message)| Request::parse(&message).unwrap()).collect();
    (requests, bus.map(|bus| bus.version()))
}

#[test]
fn the_highest_common_version_is_negotiated() {
    for highest in Version::OFFERED {
        let (requests, version) = opened(highest, Fate::Sent);
        assert_eq!(version, Ok(highest));
        let asked = requests.iter().filter_map(|request| match request {
            Request::QueryVersion(version) => Some(*version),
            _ => None,
        });
        let above = Version::OFFERED.into_iter().filter(|version| *version >= highest);
        assert!(above.map(Version::to_wire).eq(asked));
    }
}

#[test]
fn resources_are_assigned_in_the_second_form() {
    let (requests, _) = opened(Version::V1_4, Fate::Sent);
    let assigned = requests.iter().filter_map(|request| match request {
        Request::AssignResources(assigned) => Some((assigned.slot, assigned.form)),
        _ => None,
    });
    assert!(assigned.eq([(SLOT, ResourcesForm::V2), (OTHER, ResourcesForm::V2)]));
}

#[test]
fn a_failed_version_query_ends_the_negotiation() {
    let refuse: fn(&mut Vec<u8>) =
        |answer| answer[..4].copy_from_slice(&Status::BAD_DATA.get().to_le_bytes());
    let operation = "query version";
    let refused = VpciError::Refused { operation, status: Status::BAD_DATA };
    assert_eq!(opened(Version::V1_4, Fate::Changed(refuse)).1, Err(refused));
    let mismatch: fn(&mut Vec<u8>) =
        |answer| answer[..4].copy_from_slice(&Status::REVISION_MISMATCH.get().to_le_bytes());
    let (requests, result) = opened(Version::V1_2, Fate::Changed(mismatch));
    // The host accepted the last proposal, but the guest does not learn this.
    assert_eq!((requests.len(), result), (3, Err(VpciError::NoVersion)));
    assert_eq!(opened(Version::V1_4, Fate::Lost).1, Err(VpciError::Silent(operation)));
}

#[test]
fn opening_a_bus_that_is_still_on_turns_it_off_first() {
    let (requests, version) = opened(Version::V1_4, Fate::FirstEntryRefused);
    assert_eq!(version, Ok(Version::V1_4));
    let entry = Request::D0Entry { window: 0x1000_0000 };
    let release = Request::ReleaseResources;
    let power = requests.into_iter().filter(|request| {
        matches!(request, Request::D0Entry { .. } | Request::D0Exit | Request::ReleaseResources(_))
    });
    assert!(power.eq([entry, release(SLOT), release(OTHER), Request::D0Exit, entry]));
}
