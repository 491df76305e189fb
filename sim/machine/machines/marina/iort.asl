// Requesters: two root complexes, one of them behind an SMMU, and devices of the namespace.
// Compile: iasl -p iort iort.asl

                   Signature : "IORT"
                Table Length : 00000000
                    Revision : 03
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "MARINA  "
                Oem Revision : 00000001
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

                  Node Count : 00000008
                 Node Offset : 00000030
                    Reserved : 00000000

// The group of ITS 4, at 0x30
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000004

// The group of ITS 5, at 0x48
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000005

// An SMMUv3, whose own messages go by the last mapping, at 0x60
                        Type : 04
                      Length : 0080
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000003
              Mapping Offset : 00000044

                Base Address : 000000002B400000
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
     Device ID Mapping Index : 00000002

                  Input base : 00000000
                    ID Count : 000000FF
                 Output Base : 00010000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000100
                    ID Count : 0000FFFF
                 Output Base : 00020100
            Output Reference : 00000048
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00030100
            Output Reference : 00000048
       Flags (decoded below) : 00000001
              Single Mapping : 1

// Segment 0, behind the SMMU, at 0xe0
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
            Output Reference : 00000060
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 1, of 16 buses, at 0x118
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
                    ID Count : 00000FFF
                 Output Base : 00008000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

// A DMA engine, at 0x150
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
            Output Reference : 00000048
       Flags (decoded below) : 00000001
              Single Mapping : 1

// A network controller behind the SMMU, at 0x18c
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
                 Output Base : 00010090
            Output Reference : 00000060
       Flags (decoded below) : 00000001
              Single Mapping : 1

// The SMMU's performance counters, at 0x1c8
                        Type : 05
                      Length : 003C
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000001
              Mapping Offset : 00000028

         Page 0 Base Address : 000000002B440000
     Overflow Interrupt GSIV : 00000000
              Node Reference : 00000060
         Page 1 Base Address : 000000002B450000

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00030101
            Output Reference : 00000048
       Flags (decoded below) : 00000001
              Single Mapping : 1

