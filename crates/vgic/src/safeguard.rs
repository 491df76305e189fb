//! The steps of the lock-free algorithms that look removable and are not. Each is asked for by name
//! where it stands, so that the model check can leave it out and must then find a lost or
//! misdirected interrupt.

/// A step that the proof needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Safeguard {
    /// A message for an event that is pending already is still a read-modify-write of the entry.
    CoalesceByExchange,
    /// A message writes the pending bit only over the very entry that it has judged.
    CompareEntry,
    /// A message compares the entry's generation with that of the link to it.
    Generation,
    /// Disabling LPIs removes "deliverable" from every entry, instead of being a flag beside them.
    SweepOnDisable,
    /// After a ready bit or candidate was cleared, the entry that it led to is looked at again.
    LookAgain,
    /// After an empty leaf was taken out of its summary, the leaf is looked at again.
    RecheckLeaf,
    /// After an empty summary was taken out of the top word, the summary is looked at again.
    RecheckSummary,
    /// After an empty level was taken out of the mask, the level is looked at again.
    RecheckMask,
    /// A change of a pending entry's target, priority or enable sets the ready bit for the new
    /// value.
    SetReadyBit,
    /// A message that found its entry through nodes looks at the device's entry again.
    ReloadRoot,
    /// A message looks again whether the entry that it has read is its device's.
    LookUpAgain,
    /// A list register brings an LPI back to the owner of its entry only, not to the next one.
    FoldOwn,
    /// A list register does not restore pending state that a command cleared or unmapped.
    Revoke,
    /// A command that changes what is in a list register recalls it.
    Recall,
    /// An LPI that is pending at a redistributor by itself joins its event's entry when that
    /// arrives.
    TakeOwn,
    /// A guest fault is handed out after all of it was written.
    WholeFault,
    /// A message for what is in a list register makes its vCPU exit.
    KickListed,
    /// A vCPU says that it leaves before it looks for interrupts.
    LeaveFirst,
    /// Of all who find that a vCPU left, one takes note of it and kicks.
    OneKick,
}

impl Safeguard {
    /// Is the step in place? Always, outside the model check.
    #[inline]
    pub(crate) fn stands(self) -> bool {
        !crate::atomic::is_left_out(self as u8)
    }
}
