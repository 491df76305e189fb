// Eight CPUs in two clusters, a GICv3, and an ITS in each of eight I/O blocks.
// Layouts: ACPI 6.5 §5.2.12.14 (GICC), §5.2.12.15 (GICD), §5.2.12.17 (GICR), §5.2.12.18 (ITS).
// Compile: iasl -p apic apic.asl

                   Signature : "APIC"
                Table Length : 00000000
                    Revision : 05
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "SERVER  "
                Oem Revision : 00000001
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

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

               Subtable Type : 0B
                      Length : 50
                    Reserved : 0000
        CPU Interface Number : 00000004
               Processor UID : 00000004
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
                   ARM MPIDR : 0000000000010000
            Efficiency Class : 00
                    Reserved : 00
      SPE Overflow Interrupt : 0000

               Subtable Type : 0B
                      Length : 50
                    Reserved : 0000
        CPU Interface Number : 00000005
               Processor UID : 00000005
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
                   ARM MPIDR : 0000000000010100
            Efficiency Class : 00
                    Reserved : 00
      SPE Overflow Interrupt : 0000

               Subtable Type : 0B
                      Length : 50
                    Reserved : 0000
        CPU Interface Number : 00000006
               Processor UID : 00000006
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
                   ARM MPIDR : 0000000000010200
            Efficiency Class : 00
                    Reserved : 00
      SPE Overflow Interrupt : 0000

               Subtable Type : 0B
                      Length : 50
                    Reserved : 0000
        CPU Interface Number : 00000007
               Processor UID : 00000007
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
                   ARM MPIDR : 0000000000010300
            Efficiency Class : 00
                    Reserved : 00
      SPE Overflow Interrupt : 0000

               Subtable Type : 0C
                      Length : 18
                    Reserved : 0000
       Local GIC Hardware ID : 00000000
                Base Address : 0000000030000000
              Interrupt Base : 00000000
                     Version : 03
                    Reserved : 000000

// Redistributors of both clusters.
               Subtable Type : 0E
                      Length : 10
                    Reserved : 0000
                Base Address : 0000000030140000
                      Length : 00100000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000000
                Base Address : 0000000030040000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000001
                Base Address : 0000000030060000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000002
                Base Address : 0000000030080000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000003
                Base Address : 00000000300A0000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000004
                Base Address : 00000000300C0000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000005
                Base Address : 00000000300E0000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000006
                Base Address : 0000000030100000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000007
                Base Address : 0000000030120000
                    Reserved : 00000000
