// Configuration space of four segments; the last has 64 buses from 0x40 on.
// Layout: PCI Firmware Specification 3.2 §4.1.2.
// Compile: iasl -p mcfg mcfg.asl

                   Signature : "MCFG"
                Table Length : 00000000
                    Revision : 01
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "SERVER  "
                Oem Revision : 00000001
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

                    Reserved : 0000000000000000

                Base Address : 0000004000000000
        Segment Group Number : 0000
            Start Bus Number : 00
              End Bus Number : FF
                    Reserved : 00000000

                Base Address : 0000004010000000
        Segment Group Number : 0001
            Start Bus Number : 00
              End Bus Number : FF
                    Reserved : 00000000

                Base Address : 0000004020000000
        Segment Group Number : 0002
            Start Bus Number : 00
              End Bus Number : 7F
                    Reserved : 00000000

                Base Address : 0000004030000000
        Segment Group Number : 0003
            Start Bus Number : 40
              End Bus Number : 7F
                    Reserved : 00000000
