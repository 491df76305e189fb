/*
 * Direct injection by GICv4.0: one event, which a device signals, one vCPU, and a hypervisor that
 * hands the event over to the redistributor and takes it back (IHI 0069, "virtual LPIs").
 *
 * Each message sets `unseen`, and each handling in the guest clears it. When nothing can happen any
 * more, no message may be unseen. There may never be more handlings than messages, apart from one
 * for each time that the event was taken back. `FAULT` selects one rule to break; `none` breaks
 * none.
 *
 * Simplifications: all interrupts are enabled; an interrupt has no active state; commands take
 * effect in order, but at any time before the synchronization that follows them.
 */
#ifndef FAULT
#define FAULT none
#endif
#define none 0
#define unmasked 1
#define posted 2
#define undrained 3
#define unsynchronized 4
#define forgotten 5
#define listed 6
#define dirty_ignored 7
#define last_ignored 8
#define doorbell_disabled 9
#define announced_late 10
#define unrecalled 11
#define unlocked 12
#define unentered 13
#define recalled_lost 14
#define RULE(fault) (FAULT != fault)

#define MESSAGES 3

mtype = { PHYSICAL, NOTHING, VIRTUAL };

/* The device. A write that has left the device is on the bus until the ITS translates it. */
byte sent, handled, taken_back;
bool unseen, is_masked, is_held;
byte bus;

/* The event's mapping: as the last command has it, and as the ITS uses it. */
mtype mapping = PHYSICAL;
mtype cached = PHYSICAL;

/* Pending state: of the physical LPI, in software, in the list register, in the vPE's table. */
bool physical, software, in_list, in_table;
bool doorbell;

/* The vPE at its redistributor: GICR_VPENDBASER's Valid, Dirty and PendingLast. */
bool resident, dirty, last;
/* The lock of the vPE's residency, and what it protects besides: whether the vCPU is loaded, and
 * whether an event is mapped to the vPE. Other events may be, during the whole run. */
bool locked;
bool loaded, has_event, has_others;

/* The vCPU's thread. */
bool waits, woken, recalled;
bool finished;

inline set_in_table() {
	in_table = true;
	doorbell = doorbell || (!resident && RULE(doorbell_disabled))
}

inline handle() {
	handled++;
	assert(handled <= sent + taken_back);
	unseen = false
}

/* Completes the commands so far. DISCARD removes the pending state. */
inline take_effect() {
	if
	:: mapping == NOTHING && cached == PHYSICAL -> physical = false
	:: mapping == NOTHING && cached == VIRTUAL -> in_table = false
	:: else
	fi;
	cached = mapping
}

active proctype Device() {
	do
	:: sent < MESSAGES -> atomic {
		sent++;
		unseen = true;
		if
		:: is_masked -> is_held = true
		:: else -> bus++
		fi
	}
	:: sent == MESSAGES -> break
	od
}

active proctype Its() {
end:	do
	:: atomic { bus > 0 -> bus--;
		if
		:: cached == PHYSICAL -> physical = true
		:: cached == VIRTUAL -> set_in_table()
		:: else /* The event is not mapped. */
		fi
	}
	:: atomic { cached != mapping -> take_effect() }
	od
}

active proctype Redistributor() {
end:	do
	:: atomic { dirty -> last = in_table; dirty = false }
	od
}

/* The hypervisor's handlers of the physical LPI and of the doorbell. */
active proctype Handlers() {
end:	do
	:: atomic { physical -> physical = false; software = true };
		woken = true
	:: doorbell -> doorbell = false;
		if
		:: waits -> woken = true
		:: else
		fi
	od
}

inline lock() {
	atomic { !locked || !RULE(unlocked) -> locked = true }
}

inline unlock() {
	locked = false
}

/* Makes the vPE of a loaded vCPU resident. */
inline enter() {
	if
	:: loaded && !resident -> atomic { !dirty; resident = true }
	:: else
	fi
}

/* Has the vPE leave the redistributor. */
inline leave() {
	atomic { resident = false; last = false; dirty = true };
	!(dirty && RULE(dirty_ignored))
}

inline put() {
	lock();
	loaded = false;
	if
	:: resident -> leave()
	:: else -> last = false
	fi;
	unlock()
}

active proctype Vcpu() {
	if
	:: has_others = true
	:: skip
	fi;
load:	!recalled;
	waits = false;
	lock();
	loaded = true;
	if
	:: has_event || has_others -> enter()
	:: else
	fi;
	unlock();
	atomic {
		if
		:: software -> software = false; in_list = true
		:: else
		fi
	}
	/* The guest. */
	do
	:: atomic { in_list -> assert(mapping != VIRTUAL); in_list = false; handle() }
	/* It may take a virtual LPI until the vPE has left. */
	:: atomic { in_table && (resident || dirty) -> in_table = false; handle() }
	:: software || recalled -> break
	:: !in_list && (!in_table || !resident) -> break
	od;
	/* The exit folds the list register. */
	atomic { software = software || in_list; in_list = false };
	if
	:: put(); goto load /* The vCPU is preempted. */
	:: woken = false
	fi;
	/* Doorbells are always enabled, and wake a vCPU only if it waits. */
	waits = RULE(announced_late);
	put();
	if
	:: software || (last && RULE(last_ignored)) -> goto load
	:: else
	fi;
	waits = true;
end:	woken;
	goto load
}

inline mask() {
	is_masked = RULE(unmasked);
	/* A read of the vector pushes earlier writes to the ITS. */
	bus == 0 || !RULE(posted) || !RULE(unmasked)
}

inline unmask() {
	atomic {
		is_masked = false;
		bus = bus + is_held;
		is_held = false
	}
}

/* Takes the pending state from software. Only the exit of the vCPU shows whether an LPI in a list
 * register is still pending. */
inline take_pending() {
	if
	:: RULE(listed) ->
		recalled = in_list && RULE(unrecalled);
		atomic {
			!in_list || !RULE(unrecalled);
			was_pending = software;
			software = false
		}
	:: else
	fi;
	recalled = false
}

/* SYNC or VSYNC. */
inline synchronize() {
	atomic {
		if
		:: cached != mapping && RULE(unsynchronized) -> take_effect()
		:: else
		fi
	}
}

active proctype Control() {
	byte round;
	bool was_pending;
	do
	:: round < 2 ->
		/* Hand over. */
		mask();
		/* DISCARD would remove an LPI that no handler has taken yet. */
		!physical || !RULE(undrained);
		take_pending();
		lock();
		if
		:: RULE(unentered) -> enter()
		:: else
		fi;
		has_event = true;
		unlock();
		mapping = NOTHING;
		synchronize();
		mapping = VIRTUAL;
		synchronize();
		/* INT makes the virtual LPI pending. */
		atomic {
			if
			:: was_pending && RULE(forgotten) -> set_in_table()
			:: else
			fi;
			was_pending = false
		}
		unmask();
		/* Take back, or leave the event at the redistributor. */
		if
		:: mask()
		:: break
		fi;
		mapping = NOTHING;
		synchronize();
		mapping = PHYSICAL;
		synchronize();
		/* A vPE without events stays resident until its vCPU is put. */
		lock();
		has_event = false;
		unlock();
		/* DISCARD has cleared the pending state, which only the redistributor knew. */
		atomic { taken_back++; software = software || RULE(recalled_lost); woken = true };
		unmask();
		round++
	:: round == 2 -> break
	od;
	finished = true
}

/* When nothing can happen any more, the guest has seen each message. */
active proctype Judge() {
	timeout;
	assert(finished);
	assert(!unseen)
}
