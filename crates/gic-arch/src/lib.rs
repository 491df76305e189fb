//! Registers, commands and tables of the Arm GICv3, GICv3.1 and its ITS: one definition for drivers and device models.
#![no_std]
