// Six CPUs in two clusters and a GICv3 with two ITSes.
// Compile: iasl -p apic apic.asl

                   Signature : "APIC"
                Table Length : 00000000
                    Revision : 05
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "MARINA  "
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
               Processor UID : 00000010
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
               Processor UID : 00000011
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
               Processor UID : 00000012
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
               Processor UID : 00000013
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
        CPU Interface Number : 00000004
               Processor UID : 00000014
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
        CPU Interface Number : 00000005
               Processor UID : 00000015
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

               Subtable Type : 0C
                      Length : 18
                    Reserved : 0000
       Local GIC Hardware ID : 00000000
                Base Address : 0000000030000000
              Interrupt Base : 00000000
                     Version : 03
                    Reserved : 000000

               Subtable Type : 0E
                      Length : 10
                    Reserved : 0000
                Base Address : 0000000030100000
                      Length : 00060000

               Subtable Type : 0E
                      Length : 10
                    Reserved : 0000
                Base Address : 0000000038100000
                      Length : 00060000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000004
                Base Address : 0000000030040000
                    Reserved : 00000000

               Subtable Type : 0F
                      Length : 14
                    Reserved : 0000
              Translation ID : 00000005
                Base Address : 0000000038040000
                    Reserved : 00000000

