// Heron A: four CPUs, a GICv3 with an ITS. The base address of the ITS is wrong on purpose.
// Compile: iasl -p apic apic.asl

Signature : "APIC"
Table Length : 000001A8
Revision : 05
Checksum : D2
Oem ID : "EXAMPL"
Oem Table ID : "HERON-A "
Oem Revision : 00000001
Asl Compiler ID : "INTL"
Asl Compiler Revision : 20200925

Local Apic Address : 00000000
Flags (decoded below) : 00000000
                         PC-AT Compatibility : 0

Subtable Type : 0B
Length : 50
Reserved : 0000
CPU Interface Number : 00000000
Processor UID : 00000000
Flags (decoded below) : 00000001
                           Processor Enabled : 1
          Performance Interrupt Trigger Mode : 0
          Virtual GIC Interrupt Trigger Mode : 0
Parking Protocol Version : 00000000
Performance Interrupt : 00000017
Parked Address : 0000000000000000
Base Address : 0000000000000000
Virtual GIC Base Address : 0000000000000000
Hypervisor GIC Base Address : 0000000000000000
Virtual GIC Interrupt : 00000019
Redistributor Base Address : 0000000000000000
ARM MPIDR : 0000000000000000
Efficiency Class : 00
Reserved : 00
SPE Overflow Interrupt : 0000

Subtable Type : 0B
Length : 50
Reserved : 0000
CPU Interface Number : 00000001
Processor UID : 00000001
Flags (decoded below) : 00000001
                           Processor Enabled : 1
          Performance Interrupt Trigger Mode : 0
          Virtual GIC Interrupt Trigger Mode : 0
Parking Protocol Version : 00000000
Performance Interrupt : 00000017
Parked Address : 0000000000000000
Base Address : 0000000000000000
Virtual GIC Base Address : 0000000000000000
Hypervisor GIC Base Address : 0000000000000000
Virtual GIC Interrupt : 00000019
Redistributor Base Address : 0000000000000000
ARM MPIDR : 0000000000000100
Efficiency Class : 00
Reserved : 00
SPE Overflow Interrupt : 0000

Subtable Type : 0B
Length : 50
Reserved : 0000
CPU Interface Number : 00000002
Processor UID : 00000002
Flags (decoded below) : 00000001
                           Processor Enabled : 1
          Performance Interrupt Trigger Mode : 0
          Virtual GIC Interrupt Trigger Mode : 0
Parking Protocol Version : 00000000
Performance Interrupt : 00000017
Parked Address : 0000000000000000
Base Address : 0000000000000000
Virtual GIC Base Address : 0000000000000000
Hypervisor GIC Base Address : 0000000000000000
Virtual GIC Interrupt : 00000019
Redistributor Base Address : 0000000000000000
ARM MPIDR : 0000000000000200
Efficiency Class : 00
Reserved : 00
SPE Overflow Interrupt : 0000

Subtable Type : 0B
Length : 50
Reserved : 0000
CPU Interface Number : 00000003
Processor UID : 00000003
Flags (decoded below) : 00000001
                           Processor Enabled : 1
          Performance Interrupt Trigger Mode : 0
          Virtual GIC Interrupt Trigger Mode : 0
Parking Protocol Version : 00000000
Performance Interrupt : 00000017
Parked Address : 0000000000000000
Base Address : 0000000000000000
Virtual GIC Base Address : 0000000000000000
Hypervisor GIC Base Address : 0000000000000000
Virtual GIC Interrupt : 00000019
Redistributor Base Address : 0000000000000000
ARM MPIDR : 0000000000000300
Efficiency Class : 00
Reserved : 00
SPE Overflow Interrupt : 0000

Subtable Type : 0C
Length : 18
Reserved : 0000
Local GIC Hardware ID : 00000000
Base Address : 0000000008000000
Interrupt Base : 00000000
Version : 03
Reserved : 000000

Subtable Type : 0E
Length : 10
Reserved : 0000
Base Address : 00000000080A0000
Length : 00080000

Subtable Type : 0F
Length : 14
Reserved : 0000
Translation ID : 00000000
Base Address : 0000000008180000
Reserved : 00000000
