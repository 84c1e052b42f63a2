// multiplier.Multiplier on a Lattice ECP5, with the registers of its DSP block. The operands are in
// the upper bits, 2 ** 10 times as large: the lower ones are constant and take no wires, where the
// copies of a sign bit would take eleven an operand.
module multiplier (input clk, input rst, input [7:0] a, input [7:0] b, output [15:0] p);
  MULT18X18D #(
    .REG_INPUTA_CLK("CLK0"), .REG_INPUTA_CE("CE0"), .REG_INPUTA_RST("RST0"),
    .REG_INPUTB_CLK("CLK0"), .REG_INPUTB_CE("CE0"), .REG_INPUTB_RST("RST0"),
    .REG_PIPELINE_CLK("NONE"), .REG_OUTPUT_CLK("CLK0"), .REG_OUTPUT_CE("CE0"),
    .REG_OUTPUT_RST("RST0"), .GSR("DISABLED")
  ) block (
    .CLK0(clk), .CE0(1'b1), .RST0(1'b0),
    .SIGNEDA(1'b1), .SIGNEDB(1'b1), .SOURCEA(1'b0), .SOURCEB(1'b0),
    .A0(1'b0), .A1(1'b0), .A2(1'b0), .A3(1'b0), .A4(1'b0), .A5(1'b0), .A6(1'b0), .A7(1'b0),
    .A8(1'b0), .A9(1'b0), .A10(a[0]), .A11(a[1]), .A12(a[2]), .A13(a[3]), .A14(a[4]), .A15(a[5]),
    .A16(a[6]), .A17(a[7]),
    .B0(1'b0), .B1(1'b0), .B2(1'b0), .B3(1'b0), .B4(1'b0), .B5(1'b0), .B6(1'b0), .B7(1'b0),
    .B8(1'b0), .B9(1'b0), .B10(b[0]), .B11(b[1]), .B12(b[2]), .B13(b[3]), .B14(b[4]), .B15(b[5]),
    .B16(b[6]), .B17(b[7]),
    .C0(1'b0), .C1(1'b0), .C2(1'b0), .C3(1'b0), .C4(1'b0), .C5(1'b0), .C6(1'b0), .C7(1'b0),
    .C8(1'b0), .C9(1'b0), .C10(1'b0), .C11(1'b0), .C12(1'b0), .C13(1'b0), .C14(1'b0), .C15(1'b0),
    .C16(1'b0), .C17(1'b0),
    .P20(p[0]), .P21(p[1]), .P22(p[2]), .P23(p[3]), .P24(p[4]), .P25(p[5]), .P26(p[6]), .P27(p[7]),
    .P28(p[8]), .P29(p[9]), .P30(p[10]), .P31(p[11]), .P32(p[12]), .P33(p[13]), .P34(p[14]),
    .P35(p[15])
  );
endmodule
