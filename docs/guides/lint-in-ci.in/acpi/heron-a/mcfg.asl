// Configuration space of one segment.
// Compile: iasl -p mcfg mcfg.asl

Signature : "MCFG"
Table Length : 0000003C
Revision : 01
Checksum : F0
Oem ID : "EXAMPL"
Oem Table ID : "HERON-A "
Oem Revision : 00000001
Asl Compiler ID : "INTL"
Asl Compiler Revision : 20200925

Reserved : 0000000000000000

Base Address : 0000000040000000
Segment Group Number : 0000
Start Bus Number : 00
End Bus Number : FF
Reserved : 00000000
