// Configuration space of two segments.
// Compile: iasl -p mcfg mcfg.asl

                   Signature : "MCFG"
                Table Length : 00000000
                    Revision : 01
                    Checksum : 00
                      Oem ID : "DRBELL"
                Oem Table ID : "MARINA  "
                Oem Revision : 00000001
             Asl Compiler ID : "INTL"
       Asl Compiler Revision : 00000000

                    Reserved : 0000000000000000

                Base Address : 0000004010000000
        Segment Group Number : 0000
            Start Bus Number : 00
              End Bus Number : FF
                    Reserved : 00000000

                Base Address : 0000004020000000
        Segment Group Number : 0001
            Start Bus Number : 00
              End Bus Number : 0F
                    Reserved : 00000000
