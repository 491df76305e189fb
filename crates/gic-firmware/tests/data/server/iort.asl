// Requesters of a server: four segments, three SMMUs, an ITS for each I/O block.
// Layouts: Arm DEN 0049 (IO Remapping Table), nodes for ITS groups, named components, root
// complexes, SMMUv3 and PMCG, and its format of ID mappings: single ones, and the count less one.
// Firmware in the wild counts one more; so do the SMMU of segment 1 and segment 3.
// Compile: iasl -p iort iort.asl

                   Signature : "IORT"
                Table Length : 00000000
                    Revision : 03
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "SERVER  "
                Oem Revision : 00000001
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

                  Node Count : 00000013
                 Node Offset : 00000030
                    Reserved : 00000000

// The group of ITS 0, at 0x30
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000000

// The group of ITS 1, at 0x48
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000001

// The group of ITS 2, at 0x60
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000002

// The group of ITS 3, at 0x78
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000003

// The group of ITSes 4 and 5, at 0x90
                        Type : 00
                      Length : 001C
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000002
                 Identifiers : 00000004
                 Identifiers : 00000005

// The group of ITS 6, at 0xac
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000006

// The group of ITS 7, at 0xc4
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000007

// An SMMUv3 of segment 0, whose own messages go by the last mapping, at 0xdc
                        Type : 04
                      Length : 006C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000002
              Mapping Offset : 00000044

                Base Address : 000000002B000000
       Flags (decoded below) : 00000001
             COHACC Override : 1
               HTTU Override : 0
      Proximity Domain Valid : 0
                    Reserved : 00000000
               VATOS Address : 0000000000000000
                       Model : 00000000
                  Event GSIV : 00000000
                    PRI GSIV : 00000000
                   GERR GSIV : 00000000
                   Sync GSIV : 00000000
            Proximity Domain : 00000000
     Device ID Mapping Index : 00000001

                  Input base : 00000000
                    ID Count : 0000FFFF
                 Output Base : 00010000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000100
            Output Reference : 000000C4
       Flags (decoded below) : 00000001
              Single Mapping : 1

// An SMMUv3 of segment 1 with wires, and counts one too high, at 0x148
                        Type : 04
                      Length : 006C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000002
              Mapping Offset : 00000044

                Base Address : 000000002B100000
       Flags (decoded below) : 00000001
             COHACC Override : 1
               HTTU Override : 0
      Proximity Domain Valid : 0
                    Reserved : 00000000
               VATOS Address : 0000000000000000
                       Model : 00000000
                  Event GSIV : 00000060
                    PRI GSIV : 00000061
                   GERR GSIV : 00000062
                   Sync GSIV : 00000063
            Proximity Domain : 00000000
     Device ID Mapping Index : 00000000

                  Input base : 00000000
                    ID Count : 00008000
                 Output Base : 00020000
            Output Reference : 00000048
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00008000
                    ID Count : 00008000
                 Output Base : 00038000
            Output Reference : 00000060
       Flags (decoded below) : 00000000
              Single Mapping : 0

// An SMMUv3 of devices of the namespace: stream 0x20 to 0x2f go to ITS 6, at 0x1b4
                        Type : 04
                      Length : 0058
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000044

                Base Address : 000000002B200000
       Flags (decoded below) : 00000001
             COHACC Override : 1
               HTTU Override : 0
      Proximity Domain Valid : 0
                    Reserved : 00000000
               VATOS Address : 0000000000000000
                       Model : 00000000
                  Event GSIV : 00000070
                    PRI GSIV : 00000071
                   GERR GSIV : 00000072
                   Sync GSIV : 00000073
            Proximity Domain : 00000000
     Device ID Mapping Index : 00000000

                  Input base : 00000020
                    ID Count : 0000000F
                 Output Base : 00000220
            Output Reference : 000000AC
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 0, behind its SMMU, at 0x20c
                        Type : 02
                      Length : 0038
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000024

           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
               ATS Attribute : 00000000
          PCI Segment Number : 00000000
           Memory Size Limit : 40
                    Reserved : 000000

                  Input base : 00000000
                    ID Count : 0000FFFF
                 Output Base : 00000000
            Output Reference : 000000DC
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 1, behind its SMMU, at 0x244
                        Type : 02
                      Length : 0038
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000024

           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
               ATS Attribute : 00000000
          PCI Segment Number : 00000001
           Memory Size Limit : 40
                    Reserved : 000000

                  Input base : 00000000
                    ID Count : 0000FFFF
                 Output Base : 00000000
            Output Reference : 00000148
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 2, without an SMMU: DeviceIDs begin at 0x50000, at 0x27c
                        Type : 02
                      Length : 0038
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000024

           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
               ATS Attribute : 00000000
          PCI Segment Number : 00000002
           Memory Size Limit : 40
                    Reserved : 000000

                  Input base : 00000000
                    ID Count : 00007FFF
                 Output Base : 00050000
            Output Reference : 00000078
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 3: two halves at two groups, with counts one too high, at 0x2b4
                        Type : 02
                      Length : 004C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000002
              Mapping Offset : 00000024

           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
               ATS Attribute : 00000000
          PCI Segment Number : 00000003
           Memory Size Limit : 40
                    Reserved : 000000

                  Input base : 00004000
                    ID Count : 00002000
                 Output Base : 00064000
            Output Reference : 00000090
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00006000
                    ID Count : 00002000
                 Output Base : 00066000
            Output Reference : 00000078
       Flags (decoded below) : 00000000
              Single Mapping : 0

// A DMA engine with a single mapping, at 0x300
                        Type : 01
                      Length : 003C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000028

                  Node Flags : 00000000
           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
           Memory Size Limit : 40
                 Device Name : "\_SB.DMA0"
                     Padding : 00

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000040
            Output Reference : 000000AC
       Flags (decoded below) : 00000001
              Single Mapping : 1

// A network controller behind an SMMU, with a single mapping, at 0x33c
                        Type : 01
                      Length : 003C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000028

                  Node Flags : 00000000
           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
           Memory Size Limit : 40
                 Device Name : "\_SB.ETH0"
                     Padding : 00

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000021
            Output Reference : 000001B4
       Flags (decoded below) : 00000001
              Single Mapping : 1

// A disk controller with two single mappings, which are two streams, at 0x378
                        Type : 01
                      Length : 0050
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000002
              Mapping Offset : 00000028

                  Node Flags : 00000000
           Memory Properties : [IORT Memory Access Properties]
             Cache Coherency : 00000001
       Hints (decoded below) : 00
                   Transient : 0
              Write Allocate : 0
               Read Allocate : 0
                    Override : 0
                    Reserved : 0000
Memory Flags (decoded below) : 03
                   Coherency : 1
            Device Attribute : 1
           Memory Size Limit : 40
                 Device Name : "\_SB.SATA"
                     Padding : 00

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000022
            Output Reference : 000001B4
       Flags (decoded below) : 00000001
              Single Mapping : 1

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000023
            Output Reference : 000001B4
       Flags (decoded below) : 00000001
              Single Mapping : 1

// A counter group whose overflow is a message, at 0x3c8
                        Type : 05
                      Length : 003C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000028

         Page 0 Base Address : 000000002B002000
     Overflow Interrupt GSIV : 00000000
              Node Reference : 000000DC
         Page 1 Base Address : 000000002B012000

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000101
            Output Reference : 000000C4
       Flags (decoded below) : 00000001
              Single Mapping : 1

// A counter group whose overflow is a wire, which needs no mapping, at 0x404
                        Type : 05
                      Length : 0028
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

         Page 0 Base Address : 000000002B102000
     Overflow Interrupt GSIV : 00000064
              Node Reference : 00000148
         Page 1 Base Address : 000000002B112000
