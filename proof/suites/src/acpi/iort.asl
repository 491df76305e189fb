// Requesters of QEMU's `virt`, with DeviceIDs that differ from their requester IDs. The table has
// the names of QEMU's table and a newer revision, so that Linux uses it in place of QEMU's.
// Compile: iasl -p iort iort.asl

                   Signature : "IORT"
                Table Length : 00000000
                    Revision : 03
                    Checksum : 00
                      Oem ID : "BOCHS "
                Oem Table ID : "BXPC    "
                Oem Revision : 00000002
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

                  Node Count : 00000003
                 Node Offset : 00000030
                    Reserved : 00000000

// The group of the ITS, at 0x30
                        Type : 00
                      Length : 0018
                    Revision : 00
                    Reserved : 00000000
               Mapping Count : 00000000
              Mapping Offset : 00000000

                    ItsCount : 00000001
                 Identifiers : 00000000

// The SMMUv3, at 0x48: its own messages use the first mapping
                        Type : 04
                      Length : 0080
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000003
              Mapping Offset : 00000044

                Base Address : 0000000009050000
       Flags (decoded below) : 00000001
             COHACC Override : 1
               HTTU Override : 0
      Proximity Domain Valid : 0
                    Reserved : 00000000
              VATOS Address : 0000000000000000
                       Model : 00000000
                  Event GSIV : 0000006A
                    PRI GSIV : 0000006B
                   GERR GSIV : 0000006D
                   Sync GSIV : 0000006C
            Proximity Domain : 00000000
     Device ID Mapping Index : 00000000

                  Input base : 00000000
                    ID Count : 00000000
                 Output Base : 00000FFF
            Output Reference : 00000030
       Flags (decoded below) : 00000001
              Single Mapping : 1

                  Input base : 00000300
                    ID Count : 000001FF
                 Output Base : 00004000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000500
                    ID Count : 000000FF
                 Output Base : 00006000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

// Segment 0, at 0xc8. The count of bus 0 includes one ID too many, the first of bus 1. The SMMU
// distinguishes buses 0 and 128; buses 1 and 2 bypass it. The last two mappings contain bus 128.
                        Type : 02
                      Length : 0088
                    Revision : 01
                    Reserved : 00000000
               Mapping Count : 00000005
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
                    ID Count : 00000100
                 Output Base : 00000300
            Output Reference : 00000048
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000100
                    ID Count : 000000FF
                 Output Base : 00009100
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00000200
                    ID Count : 000000FF
                 Output Base : 00000800
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00008000
                    ID Count : 000000FF
                 Output Base : 00000500
            Output Reference : 00000048
       Flags (decoded below) : 00000000
              Single Mapping : 0

                  Input base : 00007F00
                    ID Count : 000001FF
                 Output Base : 0000B000
            Output Reference : 00000030
       Flags (decoded below) : 00000000
              Single Mapping : 0
